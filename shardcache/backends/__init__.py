"""The edge: how commands reach a node and replies come back."""
