"""The contract of a backend, by subject; `shardcache.testing.backend` joins it."""
