"""Which node holds a key: nodes, strategies, topologies, and the keys that move between two."""
