"""Hashing strategies, one algorithm a module."""
