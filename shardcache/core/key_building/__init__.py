"""The part of a cache key that stands for the arguments of a call."""
