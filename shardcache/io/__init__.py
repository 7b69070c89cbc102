"""The only code that knows whether a client blocks or awaits."""
