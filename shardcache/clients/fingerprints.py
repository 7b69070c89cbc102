"""What tells a function from another one of its name: its code, and what it closes over."""

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

from shardcache.core.callkeys import UnkeyableError, canonical

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
        taken = _Taken()
        taken.function(function)
        self._digest = taken.hash.digest()
        self._objects = [_reference(each) for each in taken.objects]

    def matches(self, other: Fingerprint) -> bool:
        """Return whether both are of one function, as far as can be known."""
        return (
            self._digest == other._digest
            and len(self._objects) == len(other._objects)
            and all(map(_are_one, self._objects, other._objects))
        )


class _Taken:
    """What has been taken of a function so far: bytes, and objects that have none."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=16)
        self.objects: list[object] = []
        self._functions: list[object] = []  # met already: a recursive one holds itself

    def function(self, function: Any) -> None:
        self._functions.append(function)
        self._bytes(f"{function.__module__}:{function.__qualname__}".encode())
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            self._code(code)
            for cell in getattr(function, "__closure__", None) or ():
                self._cell(cell)
            self._defaults(function)
        elif hasattr(function, "__wrapped__"):
            self.value(function.__wrapped__)

    def _defaults(self, function: Any) -> None:
        """Take the defaults of parameters, but objects without content: they are part of keys."""
        named = getattr(function, "__kwdefaults__", None) or {}
        for default in (*(getattr(function, "__defaults__", None) or ()), *named.values()):
            try:
                self._bytes(canonical(default, typed=True))
            except UnkeyableError:
                self._bytes(b"object")

    def _cell(self, cell: CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            self._bytes(b"empty")
            return
        self.value(content)

    def value(self, value: Any) -> None:
        """Take a value that a function closes over."""
        if any(value is each for each in self._functions):
            self._bytes(b"again")
        elif type(value) is tuple:
            self._bytes(b"tuple%d" % len(value))
            for each in value:
                self.value(each)
        elif type(value) is partial:
            self._bytes(b"partial")
            self.value((value.func, value.args, *sorted(value.keywords.items())))
        elif type(value) is MethodType:
            self._bytes(b"method")
            self.value((value.__func__, value.__self__))
        elif isinstance(getattr(value, "__code__", None), CodeType):
            self.function(value)
        else:
            self._plain(value)

    def _plain(self, value: Any) -> None:
        if _is_fixed(value):
            try:
                self._bytes(canonical(value, typed=True))
            except UnkeyableError:
                pass
            else:
                return
        self._bytes(b"object")
        self.objects.append(value)

    def _code(self, code: CodeType) -> None:
        """Take code as it is wherever it stands in its file: a line above it makes no other one."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self._bytes(repr(counts).encode())
        self._bytes(code.co_code)
        self._bytes(getattr(code, "co_exceptiontable", b""))
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._bytes(repr(names).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant)
            else:
                self._bytes(_constant(constant))

    def _bytes(self, data: bytes) -> None:
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
