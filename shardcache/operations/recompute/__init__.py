"""Cached values: one caller recomputes a missing value for all."""
