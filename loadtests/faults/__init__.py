"""Faults played on real servers, and what callers of the clients notice of them."""
