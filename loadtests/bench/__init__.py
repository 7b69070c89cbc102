"""The cost of shardcache against raw sockets and other clients, measured in one run."""
