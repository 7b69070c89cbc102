"""Locks over a majority of nodes."""
