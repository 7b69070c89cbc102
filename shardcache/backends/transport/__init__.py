"""How bytes travel to a node and back, whatever the wire."""
