"""A node's error reaches the caller: `on_error="raise"`, where a miss was wanted."""

from dataclasses import replace

from run import Part

_settings = Part.settings


def _raising(self):
    return replace(_settings(self), on_error="raise")


Part.settings = _raising
