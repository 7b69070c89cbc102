"""The users of a run: callers of the cache client, and visitors of the example application."""
