"""The arguments of a call as bytes: equal calls give equal bytes, in every process and version.

A letter for the type and a length stand before each value, so that two different sequences of
values never give the same bytes. `repr`, `id`, `hash` and pickle are not used: they differ between
processes or run code.

Types must match exactly, because a subclass may hold more than its base shows. Equal numbers are
the same value, and so are all NaN. A dict or a set has no order. Two datetimes are the same if
date, time, zone and fold are the same; being the same instant is not enough.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from hashlib import blake2b
from typing import Any, Final, TypeAlias
from uuid import UUID

from shardcache.core.key_building.records import field_names, has_more
from shardcache.core.key_building.third_party import (
    equal_builtin,
    standard_type,
    to_builtins,
    type_name,
)
from shardcache.errors import ShardCacheError

# Arguments are of whatever type the caller's function takes, hence `Any`. The flag is `typed`, the
# number the depth of nesting.
Encoder: TypeAlias = Callable[[Any, bool, int], bytes]

MAX_WHOLE: Final = 600  # digits of a decimal that is written out as the whole number it is
MAX_DEPTH: Final = 32  # levels of nesting; a value that holds itself never ends
_DOUBLE: Final = struct.Struct("!d")
_NAN: Final = float("nan")


class UnkeyableError(ShardCacheError):
    """A value of a type that has no canonical bytes."""


def digest(parts: bytes) -> str:
    """Return 32 hex digits that stand for the arguments: 128 bits of BLAKE2b."""
    return blake2b(parts, digest_size=16).hexdigest()


def canonical(value: Any, *, typed: bool = False) -> bytes:
    r"""Return the bytes of a value; equal numbers give the same bytes unless `typed`.

    Takes all types of the default codec; enums, classes, named tuples, dataclasses and attrs
    classes of these; known types of other libraries; and objects whose class has a `__cache_key__`
    (an attribute, or a method without arguments). Raise `UnkeyableError` for anything else,
    including subclasses of the built-in types.

    >>> canonical(1), canonical(1.0), canonical(1.0, typed=True), canonical(["a", b"b"])
    (b'i1:1', b'i1:1', b'f8:?\xf0\x00\x00\x00\x00\x00\x00', b'l8:s1:ab1:b')
    """
    encoder = _ENCODERS.get(type(value))
    return _other(value, typed, 0) if encoder is None else encoder(value, typed, 0)


def _nested(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001 - as `canonical`
    if depth >= MAX_DEPTH:
        raise UnkeyableError(f"a value nested more than {MAX_DEPTH} levels deep")
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


# CPython can be set to refuse integers of more decimal digits, but not of fewer.
_BIG: Final = 10**640


def _float(value: float, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    if not typed and value.is_integer():
        return _int(int(value), typed, depth)
    return _tagged(b"f", _DOUBLE.pack(value if value == value else _NAN))  # noqa: PLR0124 - NaN


def _decimal(value: Decimal, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    if not typed and not value.is_nan() and (near := float(value)) == value:
        return _float(near, typed, depth)
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, str) or typed:  # not a number; or it must differ from its equals
        return _tagged(b"D", repr((sign, digits, exponent)).encode())
    while len(digits) > 1 and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if 0 <= exponent < MAX_WHOLE - len(digits):
        return _int((-1) ** sign * int("".join(map(str, digits))) * 10**exponent, typed, depth)
    return _tagged(b"D", repr((sign, digits, exponent)).encode())


def _str(value: str, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    data = value.encode("utf-8", "surrogatepass")
    return b"s%d:%s" % (len(data), data)


def _bytes(value: bytes, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return b"b%d:%s" % (len(value), value)


def _sequence(letter: bytes) -> Encoder:
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


def _ordered(value: OrderedDict[Any, Any], typed: bool, depth: int) -> bytes:  # noqa: FBT001
    _refuse_attributes(value)
    pairs = [
        _nested(key, typed, depth + 1) + _nested(each, typed, depth + 1)
        for key, each in value.items()
    ]
    return _tagged(b"O", b"".join(pairs))


def _counter(value: Counter[Any], typed: bool, depth: int) -> bytes:  # noqa: FBT001
    _refuse_attributes(value)
    return _tagged(b"C", _mapping(value, typed, depth))


def _defaulting(value: defaultdict[Any, Any], typed: bool, depth: int) -> bytes:  # noqa: FBT001
    factory = _nested(value.default_factory, typed, depth + 1)
    return _tagged(b"F", factory + _mapping(value, typed, depth))


def _datetime(value: datetime, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"t", f"{zone_name(value.tzinfo)}/{value.fold}/{value.isoformat()}".encode())


def _time(value: time, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"c", f"{zone_name(value.tzinfo)}/{value.fold}/{value.isoformat()}".encode())


def _fixed_zone(value: timezone, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"z", f"{value.utcoffset(None).total_seconds()}/{zone_name(value)}".encode())


def zone_name(zone: tzinfo | None) -> str:
    """Return the name that identifies a time zone; raise `UnkeyableError` if it has none."""
    if zone is None:
        return ""
    if type(zone) is timezone:
        return f"={zone.tzname(None)}"
    name = to_builtins(zone)
    if isinstance(name, str):
        return name
    raise UnkeyableError(
        f"a time in a zone of type {type_name(type(zone))}, not a ZoneInfo with a name or a timezone"
    )


def _date(value: date, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"d", value.isoformat().encode())


def _timedelta(value: timedelta, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"p", b"%d/%d/%d" % (value.days, value.seconds, value.microseconds))


def _uuid(value: UUID, _typed: bool, _depth: int) -> bytes:  # noqa: FBT001
    return _tagged(b"U", value.bytes)


_ENCODERS: Final[dict[type, Encoder]] = {
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
    timezone: _fixed_zone,
    Decimal: _decimal,
    UUID: _uuid,
    OrderedDict: _ordered,
    Counter: _counter,
    defaultdict: _defaulting,
}
_BY_PATH: Final = {type_name(kind): encoder for kind, encoder in _ENCODERS.items()}


def _other(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    """Encode a value of none of these exact types."""
    kind = type(value)
    if issubclass(kind, type):
        return _class(value)
    own_key = _cache_key(value, kind)
    if own_key is not None:
        return _tagged(b"k", _str_of(kind) + _nested(own_key, typed, depth + 1))
    if issubclass(kind, Enum):
        return _enum(value)
    names = field_names(kind)  # type: ignore[arg-type]  # every class is hashable
    if names is not None:
        return _record(value, names, typed, depth)
    return _third_party(value, typed, depth)


def _cache_key(value: Any, kind: type) -> Any:
    """Return the `__cache_key__` of a value's class, or `None`.

    It is looked up on the type, as Python does for special methods. An object that takes its
    attributes or items from a request must not let the sender choose its key.
    """
    for each in kind.__mro__:
        if "__cache_key__" in vars(each):
            found = vars(each)["__cache_key__"]
            bind = getattr(type(found), "__get__", None)
            bound = found if bind is None else bind(found, value, kind)
            return bound() if callable(bound) else bound
    return None


def _class(kind: type) -> bytes:
    """Encode a class by its path, if the class is found there.

    A class made in a function is a new one with each call, under the same path.
    """
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    if found is not kind and kind is not type(None):
        raise UnkeyableError(f"the class {type_name(kind)}, which is not found under this name")
    return _str_of(kind)


def _enum(value: Any) -> bytes:
    """Encode a member by its class and name; a flag, which may have no name, by its value."""
    kind = type(value)
    identity = value._value_ if issubclass(kind, Flag) else value._name_
    return _tagged(b"e", _class(kind) + canonical(identity))


def _record(value: Any, names: tuple[str, ...], typed: bool, depth: int) -> bytes:  # noqa: FBT001
    if has_more(value, names):
        raise UnkeyableError(f"a value of type {type_name(type(value))} with more than its fields")
    parts = [_class(type(value))]
    for name in names:
        is_set = hasattr(value, name)
        field = _nested(getattr(value, name), typed, depth + 1) if is_set else b"-0:"
        parts += (_nested(name, typed, depth + 1), field)
    return _tagged(b"r", b"".join(parts))


def _third_party(value: Any, typed: bool, depth: int) -> bytes:  # noqa: FBT001
    kind = type(value)
    standard = standard_type(value)
    if standard is not None:
        return _BY_PATH[standard](value, typed, depth)
    equal = equal_builtin(value)
    if equal is not NotImplemented:
        data = _nested(equal, typed, depth + 1)
        return _tagged(b"x", _str_of(kind) + data) if typed else data
    parts = to_builtins(value)
    if parts is not NotImplemented:
        return _tagged(b"x", _str_of(kind) + _nested(parts, typed, depth + 1))
    base = next((each for each in kind.__mro__ if each in _ENCODERS), None)
    more = f", a subclass of {type_name(base)} that may hold more" if base is not None else ""
    raise UnkeyableError(f"a value of type {type_name(kind)}{more}")


def _refuse_attributes(value: Any) -> None:
    if value.__dict__:
        raise UnkeyableError(f"a value of type {type_name(type(value))} with added attributes")


def _path(kind: type) -> bytes:
    return f"{kind.__module__}:{kind.__qualname__}".encode()


def _str_of(kind: type) -> bytes:
    return _tagged(b"T", _path(kind))
