"""Locks of any provider, and the built-in one over a majority of nodes."""
