"""A proxy between client and server, with the faults of a network."""
