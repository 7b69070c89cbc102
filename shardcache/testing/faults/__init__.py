"""A proxy between client and server that causes network faults."""
