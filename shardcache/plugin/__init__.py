"""Plugins: strategies, backends, codecs, lock providers, observers and commands, by name."""
