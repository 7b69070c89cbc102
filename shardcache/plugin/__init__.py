"""Plugins: strategies, backends, codecs, observers and commands, registered by name."""
