"""What tells a function from another of its name: its code, and what it closes over."""

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

# Functions and what they close over are the caller's own, hence `Any`.

_FIXED: Final = frozenset(
    {
        *(type(None), bool, int, float, str, bytes, frozenset),
        *(date, datetime, time, timedelta, timezone, Decimal, UUID),
    }
)


class Fingerprint:
    """A function's code and variables as they were when it was decorated.

    Values are compared by content, so that it outlives the function; what has no content of its own,
    or may change it, is compared by identity: a client, a list. Where such an object is gone, another
    cannot be it.
    """

    __slots__ = ("_digest", "_objects")

    def __init__(self, function: Callable[..., Any]) -> None:
        content = _Content()
        content.add_function(function)
        self._digest = content.hash.digest()
        self._objects = [_reference(each) for each in content.objects]

    def matches(self, other: Fingerprint) -> bool:
        """Return whether both are of one function, as far as can be known."""
        return (
            self._digest == other._digest
            and len(self._objects) == len(other._objects)
            and all(map(_are_one, self._objects, other._objects))
        )


class _Content:
    """What a function consists of: a hash of all that can be written as bytes, and the other objects."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=16)
        self.objects: list[object] = []
        self._functions: list[object] = []  # met already: a recursive one holds itself

    def add_function(self, function: Any) -> None:
        """Add a function's name, code, variables and defaults."""
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
        """Add the defaults of parameters, but no objects: whatever they are, they are part of keys."""
        named = getattr(function, "__kwdefaults__", None) or {}
        for default in (*(getattr(function, "__defaults__", None) or ()), *named.values()):
            try:
                self._add_bytes(canonical(default, typed=True))
            except UnkeyableError:
                self._add_bytes(b"object")

    def _add_cell(self, cell: CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
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
            self._add_plain(value)

    def _add_plain(self, value: Any) -> None:
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
        """Add code as it is wherever it stands in its file: a line above it makes no other one."""
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
    """Return a constant of code as bytes; the order of a frozen set says nothing."""
    if isinstance(constant, frozenset):
        return b"frozenset" + b",".join(sorted(map(_constant, constant)))
    if isinstance(constant, tuple):
        return b"tuple" + b",".join(map(_constant, constant))
    return repr((type(constant).__name__, constant)).encode("utf-8", "surrogatepass")


def _is_fixed(value: object) -> bool:
    """Return whether a value will always be what it is now, as lists and most objects will not."""
    kind = type(value)
    return kind in _FIXED or issubclass(kind, (Enum, type))


def _reference(value: object) -> Callable[[], object]:
    try:
        return ref(value)
    except TypeError:  # of a type that cannot be referred to weakly, such as a list
        return partial(_same, value)


def _same(value: object) -> object:
    return value


def _are_one(one: Callable[[], object], other: Callable[[], object]) -> bool:
    value = one()
    return value is not None and value is other()
