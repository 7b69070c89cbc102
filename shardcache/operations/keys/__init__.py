"""Plain calls: one key, many keys, every node."""
