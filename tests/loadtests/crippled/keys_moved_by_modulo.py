"""Keys are placed by a remainder: with a node more, nearly all of them move."""

from dataclasses import replace

from run import Part

_settings = Part.settings


def _by_modulo(self):
    return replace(_settings(self), strategy="modulo")


Part.settings = _by_modulo
