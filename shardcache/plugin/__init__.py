"""How strategies, backends, codecs, observers and commands are found by name."""
