"""Faults on real servers, and what the callers of the clients notice."""
