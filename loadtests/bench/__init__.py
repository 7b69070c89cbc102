"""What shardcache costs beside raw sockets and other clients, measured in one run."""
