"""Who calls in a run: users of the cache client, and visitors of the example application."""
