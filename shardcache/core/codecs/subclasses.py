"""Subclasses of built-in types whose value is all their state: a fixed table, by name.

A type of another library is looked up among the modules that are loaded. Nothing is imported, and no
class is made from a name in the cache.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from shardcache.errors import DecodeError

# Values may be anything, and so may stored ones: every `Any` here is one.


class Subclass(NamedTuple):
    """A type in the table: where it is found, and how its value becomes one of a built-in type."""

    module: str
    name: str
    to_builtin: Callable[[Any], Any]
    builtin: type

    def find(self) -> Any:
        """Return the type, or `None` if its module is not loaded."""
        return getattr(sys.modules.get(self.module), self.name, None)

    def restore(self, value: object) -> Any:
        """Return the value of this type; raise `DecodeError` if that is not possible."""
        kind = self.find()
        if kind is None:
            raise DecodeError(f"a {self.module}.{self.name}, and {self.module} is not loaded")
        if type(value) is not self.builtin:
            raise DecodeError(f"a {self.module}.{self.name} without its value")
        return kind(value)


def _text(value: str) -> str:
    return str.__str__(value)  # `str(value)` calls the subclass


# The codes are those of marks (`Mark`): they never change.
SUBCLASSES: Final[Mapping[int, Subclass]] = {
    11: Subclass("markupsafe", "Markup", _text, str),
    12: Subclass("django.utils.safestring", "SafeString", _text, str),
    13: Subclass("http", "HTTPStatus", int, int),
    14: Subclass("http", "HTTPMethod", _text, str),
}
_CODES: Final = {(each.module, each.name): code for code, each in SUBCLASSES.items()}


def code_of(kind: type) -> int:
    """Return the code of a type in the table; 0 for others.

    >>> from http import HTTPStatus
    >>> code_of(HTTPStatus), code_of(int)
    (13, 0)
    """
    code = _CODES.get((kind.__module__, kind.__qualname__), 0)
    return code if code and SUBCLASSES[code].find() is kind else 0
