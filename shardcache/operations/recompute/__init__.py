"""One caller recomputes a missing value for all."""
