"""Many values made void at once."""
