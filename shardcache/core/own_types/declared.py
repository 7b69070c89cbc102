"""A declared type with the functions that turn its values into built-in ones, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

# A type may be any annotation, and its values are the caller's own: every `Any` here is one of these.


class Form(NamedTuple):
    """How values become built-in ones, and back.

    Each of `dumps` turns a value into built-in ones, the fastest first; it may lose what a later one
    keeps. `load` validates what any of them returned, and returns the value.
    """

    dumps: tuple[Callable[[Any], Any], ...]
    load: Callable[[Any], Any]


class DeclaredType(NamedTuple):
    """The type of a function's results, in two forms of built-in values.

    `rich` may have what the codec `msgpack` keeps: bytes, tuples, dates, `Decimal`, `UUID`. `json` has
    what JSON has, for other codecs. `explain` tells why a function failed, and quotes no value.
    """

    name: str
    rich: Form
    json: Form
    explain: Callable[[Exception], str]


class UnsupportedTypeError(Exception):
    """A library cannot handle a type; the message says why."""


def type_text(kind: Any) -> str:
    """Return how an error names a type.

    >>> from decimal import Decimal
    >>> print(type_text(int), type_text(list[Decimal] | None))
    int list[decimal.Decimal] | None
    """
    return inspect.formatannotation(kind)
