"""Faults that are planted one at a time in a copy of the package: a test must notice each."""
