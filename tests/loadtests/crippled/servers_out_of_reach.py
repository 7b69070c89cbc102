"""The servers are where this process cannot reach them."""

from dataclasses import replace

from run import Part

from shardcache import Node

_settings = Part.settings


def _elsewhere(self):
    return replace(_settings(self), nodes=(Node("memcached://127.0.0.1:1"),))


Part.settings = _elsewhere
