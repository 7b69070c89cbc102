"""Hashing strategies: which node each key belongs to, one algorithm in each module."""
