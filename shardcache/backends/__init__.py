"""The edge: how commands reach a node, and its replies come back."""
