"""Which node to ask, and how a node is asked."""
