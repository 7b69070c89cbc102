"""The arguments of a call as bytes: equal calls give equal bytes, in every process and version.

Each value has its type's letter and its length in front, so that no two sequences of values run
into one. Never `repr`, `id`, `hash` or pickle, which differ between processes or run code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from shardcache.errors import ShardCacheError

# Arguments are of whatever type the caller's function takes, hence `Any`.
Encoder = Callable[[Any, bool], bytes]

MAX_WHOLE: Final = 600  # digits of a decimal that is written out as the whole number it is
DEEPEST: Final = 32  # levels of nesting; a value that holds itself has no end
_DOUBLE: Final = struct.Struct("!d")


class UnkeyableError(ShardCacheError):
    """A value of a type that has no canonical bytes."""


def digest(parts: bytes) -> str:
    """Give the 32 hex digits that stand for the arguments: 128 bits of BLAKE2b."""
    return blake2b(parts, digest_size=16).hexdigest()


def canonical(value: Any, *, typed: bool = False) -> bytes:
    r"""Give the bytes of a value; equal numbers give the same unless `typed`.

    Takes what the default codec takes, enums, classes, and objects with a `__cache_key__` (an
    attribute or a method without arguments). Raise `UnkeyableError` for anything else.

    >>> canonical(1), canonical(1.0), canonical(1.0, typed=True), canonical(["a", b"b"])
    (b'i1:1', b'i1:1', b'f8:?\xf0\x00\x00\x00\x00\x00\x00', b'l8:s1:ab1:b')
    """
    encoder = _ENCODERS.get(type(value))
    return _other(value, typed, 0) if encoder is None else encoder(value, typed, 0)


def _nested(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001 - as `canonical`
    if depth >= DEEPEST:
        raise UnkeyableError(f"a value nested more than {DEEPEST} levels deep")
    encoder = _ENCODERS.get(type(value))
    return _other(value, typed, depth) if encoder is None else encoder(value, typed, depth)


def _tagged(letter: bytes, data: bytes) -> bytes:
    return b"%s%d:%s" % (letter, len(data), data)


def _none(_value: None, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return b"n0:"


def _bool(value: bool, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"o", b"%d" % value) if typed else _int(int(value), typed, depth)


def _int(value: int, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    digits = b"%d" % value if -_BIG < value < _BIG else b"%x" % value + b"h"
    return b"i%d:%s" % (len(digits), digits)


# CPython can be told to refuse decimal digits beyond a limit, though not below this.
_BIG: Final = 10**640


def _float(value: float, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    if not typed and value.is_integer():
        return _int(int(value), typed, depth)
    return _tagged(b"f", _DOUBLE.pack(value))


def _decimal(value: Decimal, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, str) or typed:  # infinite, or no number; or to be told from its equals
        return _tagged(b"D", repr((sign, digits, exponent)).encode())
    while len(digits) > 1 and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if digits == (0,):
        sign, exponent = 0, 0
    if 0 <= exponent < MAX_WHOLE - len(digits):
        return _int((-1) ** sign * int("".join(map(str, digits))) * 10**exponent, typed, depth)
    return _tagged(b"D", repr((sign, digits, exponent)).encode())


def _str(value: str, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    data = value.encode("utf-8", "surrogatepass")
    return b"s%d:%s" % (len(data), data)


def _bytes(value: bytes, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return b"b%d:%s" % (len(value), value)


def _sequence(letter: bytes) -> Callable[[Any, bool, int], bytes]:
    def encode(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001
        return _tagged(letter, b"".join([_nested(each, typed, depth + 1) for each in value]))

    return encode


def _unordered(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"u", b"".join(sorted(_nested(each, typed, depth + 1) for each in value)))


def _mapping(value: Mapping[Any, Any], typed: bool, depth: int) -> bytes:  # noqa: FBT001
    pairs = sorted(
        (_nested(key, typed, depth + 1), _nested(each, typed, depth + 1))
        for key, each in value.items()
    )
    return _tagged(b"m", b"".join(key + each for key, each in pairs))


def _datetime(value: datetime, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"t", f"{value.isoformat()}/{value.fold}".encode())


def _time(value: time, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"c", f"{value.isoformat()}/{value.fold}".encode())


def _date(value: date, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"d", value.isoformat().encode())


def _timedelta(value: timedelta, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"p", b"%d/%d/%d" % (value.days, value.seconds, value.microseconds))


def _uuid(value: UUID, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"U", value.bytes)


_ENCODERS: Final[dict[type, Callable[[Any, bool, int], bytes]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    list: _sequence(b"l"),
    tuple: _sequence(b"a"),
    dict: _mapping,
    set: _unordered,
    frozenset: _unordered,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    Decimal: _decimal,
    UUID: _uuid,
}


def _other(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    """Encode what is of none of these types, though it may be of a subclass of one."""
    if isinstance(value, type):
        return _tagged(b"T", _path(value))
    given = getattr(value, "__cache_key__", None)
    if given is not None:
        kept = given() if callable(given) else given
        return _tagged(b"k", _str_of(type(value)) + _nested(kept, typed, depth + 1))
    if isinstance(value, Enum):
        named = canonical(value.name if value.name is not None else value.value)
        return _tagged(b"e", _str_of(type(value)) + named)
    for kind in type(value).__mro__:
        encoder = _ENCODERS.get(kind)
        if encoder is not None:
            return encoder(value, typed, depth)
    raise UnkeyableError(f"a value of type {type(value).__qualname__}")


def _path(kind: type) -> bytes:
    return f"{kind.__module__}:{kind.__qualname__}".encode()


def _str_of(kind: type) -> bytes:
    return _tagged(b"T", _path(kind))
