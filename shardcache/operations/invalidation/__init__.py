"""Invalidating many values at once: tags, generations, and clear."""
