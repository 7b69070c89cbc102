"""The fingerprint of a function: it tells two functions of one name apart by code and closure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import blake2b
from types import CellType, CodeType, MethodType
from typing import Any, Final
from uuid import UUID
from weakref import ref

from shardcache.core.key_building.arguments import UnkeyableError, canonical

# Functions and their closures are the caller's own, hence `Any`.

_FIXED: Final = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, frozenset),
        *(date, datetime, time, timedelta, timezone, Decimal, UUID),
    }
)


class Fingerprint:
    """A function's code and closure as they were when it was decorated.

    Immutable values are compared by content, so that the fingerprint outlives the function. Other
    objects, such as a client or a list, are compared by identity; one that is gone equals no other.
    """

    __slots__ = ("_digest", "_objects")

    def __init__(self, function: Callable[..., Any]) -> None:
        content = _Content()
        content.add_function(function)
        self._digest = content.hash.digest()
        self._objects = [_reference(each) for each in content.objects]

    def matches(self, other: Fingerprint) -> bool:
        """Return whether both are of the same function, as far as can be known."""
        return (
            self._digest == other._digest
            and len(self._objects) == len(other._objects)
            and all(map(_are_same, self._objects, other._objects))
        )


class _Content:
    """The content of a function: a hash of all that can be written as bytes, and the other objects."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=16)
        self.objects: list[object] = []
        self._functions: list[object] = []  # seen already: a recursive function holds itself

    def add_function(self, function: Any) -> None:
        """Add a function's name, code, closure and defaults."""
        self._functions.append(function)
        self._add_bytes(f"{function.__module__}:{function.__qualname__}".encode())
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            self._add_code(code)
            for cell in getattr(function, "__closure__", None) or ():
                self._add_cell(cell)
            self._add_defaults(function)
        elif hasattr(function, "__wrapped__"):
            self._add_value(function.__wrapped__)

    def _add_defaults(self, function: Any) -> None:
        """Add the defaults of parameters, but no objects: those are part of keys anyway."""
        named = getattr(function, "__kwdefaults__", None) or {}
        for default in (*(getattr(function, "__defaults__", None) or ()), *named.values()):
            try:
                self._add_bytes(canonical(default, typed=True))
            except UnkeyableError:
                self._add_bytes(b"object")

    def _add_cell(self, cell: CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # not set yet
            self._add_bytes(b"empty")
            return
        self._add_value(content)

    def _add_value(self, value: Any) -> None:
        """Add a value that a function closes over."""
        if any(value is each for each in self._functions):
            self._add_bytes(b"again")
        elif type(value) is tuple:
            self._add_bytes(b"tuple%d" % len(value))
            for each in value:
                self._add_value(each)
        elif type(value) is partial:
            self._add_bytes(b"partial")
            self._add_value((value.func, value.args, *sorted(value.keywords.items())))
        elif type(value) is MethodType:
            self._add_bytes(b"method")
            self._add_value((value.__func__, value.__self__))
        elif isinstance(getattr(value, "__code__", None), CodeType):
            self.add_function(value)
        else:
            self._add_other(value)

    def _add_other(self, value: Any) -> None:
        """Add an immutable value by its content, any other object by its identity."""
        if _is_fixed(value):
            try:
                self._add_bytes(canonical(value, typed=True))
            except UnkeyableError:
                pass
            else:
                return
        self._add_bytes(b"object")
        self.objects.append(value)

    def _add_code(self, code: CodeType) -> None:
        """Add code without its place in the file: a new line above it changes nothing."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._add_bytes(repr(counts).encode())
        self._add_bytes(code.co_code)
        self._add_bytes(getattr(code, "co_exceptiontable", b""))
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._add_bytes(repr(names).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_code(constant)
            else:
                self._add_bytes(_constant(constant))

    def _add_bytes(self, data: bytes) -> None:
        self.hash.update(struct.pack("!Q", len(data)) + data)


def _constant(constant: object) -> bytes:
    """Return a constant of code as bytes; the order of a frozen set does not count."""
    if isinstance(constant, frozenset):
        return b"frozenset" + b",".join(sorted(map(_constant, constant)))
    if isinstance(constant, tuple):
        return b"tuple" + b",".join(map(_constant, constant))
    return repr((type(constant).__name__, constant)).encode("utf-8", "surrogatepass")


def _is_fixed(value: object) -> bool:
    """Return whether a value is immutable; lists and most objects are not."""
    kind = type(value)
    return kind in _FIXED or issubclass(kind, (Enum, type))


def _reference(value: object) -> Callable[[], object]:
    try:
        return ref(value)
    except TypeError:  # a type without weak references, such as a list
        return partial(_same, value)


def _same(value: object) -> object:
    return value


def _are_same(one: Callable[[], object], other: Callable[[], object]) -> bool:
    value = one()
    return value is not None and value is other()
