"""Faces of other clients, for programs that are written against them."""
