"""Where a value that was read back differs from the value that was stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import count
from typing import Any, Final, TypeAlias
from uuid import UUID

from shardcache.core.own_types.declared import type_text

# Values are the caller's own, hence `Any`.

Difference: TypeAlias = tuple[str, str]  # the place, and what is different there
# A part of both values, after its place in them: an index, a field's name, or `None` in a dict.
Part: TypeAlias = tuple[int | str | None, Any, Any]

_SCALARS: Final = frozenset({str, int, float, bool, bytes, UUID})
# A declared type makes one of another: `price: float` reads 1 as 1.0.
_NUMBERS: Final = frozenset({int, float, Decimal})
_MISSING: Final = object()  # in place of a field that is not set

# Where Pydantic keeps what is not a field: extra values and private attributes.
_BESIDE_FIELDS: Final = ("__pydantic_extra__", "__pydantic_private__")


def first_difference(value: Any, twin: Any) -> str | None:
    """Return where two values first differ, and how; `None` if they are equal and of the same types.

    Equal numbers of different types are the same. The text has names of fields and types, and no
    value and no key of a dict.

    >>> print(first_difference({"a": [1, (2,)]}, {"a": [1.0, [2]]}))
    list in place of tuple at […][1]
    """
    found = _difference(value, twin)
    if found is None:
        return None
    place, what = found
    return f"{what} at {place}" if place else what


def _difference(value: Any, twin: Any) -> Difference | None:
    kind = type(value)
    if kind is not type(twin):
        if kind in _NUMBERS and type(twin) in _NUMBERS and value == twin:
            return None
        return "", f"{type_text(type(twin))} in place of {type_text(kind)}"
    parts = _parts(kind, value, twin)
    return ("", parts) if isinstance(parts, str) else _first(parts)


def _first(parts: Iterable[Part]) -> Difference | None:
    for place, value, twin in parts:
        if type(value) in _SCALARS and type(value) is type(twin) and value == twin:
            continue  # nearly always; to save the call
        found = _difference(value, twin)
        if found is not None:
            return _in_text(place) + found[0], found[1]
    return None


def _in_text(place: int | str | None) -> str:
    if place is None:
        return "[…]"
    return f"[{place}]" if isinstance(place, int) else f".{place}"


def _parts(kind: Any, value: Any, twin: Any) -> Iterable[Part] | str:
    """Return the parts of two values of a type, or how the values differ as wholes."""
    if issubclass(kind, (list, tuple)):
        if len(value) != len(twin):
            return f"{len(twin)} items in place of {len(value)}"
        return zip(count(), value, twin)
    if issubclass(kind, (dict, set, frozenset)):
        if set(value) != set(twin) or _types(value) != _types(twin):
            return "other keys or members"
        items = value.items() if issubclass(kind, dict) else ()
        return ((None, each, twin[key]) for key, each in items)
    names = _field_names(kind)
    if names is None:
        return _compare_wholes(value, twin)
    return ((name, getattr(value, name, _MISSING), getattr(twin, name, _MISSING)) for name in names)


def _compare_wholes(value: Any, twin: Any) -> tuple[()] | str:
    """Return how two values without parts differ; no parts if they are equal."""
    if value != twin and (value == value or twin == twin):  # noqa: PLR0124 - unless not a number
        return "another value"
    if isinstance(value, (datetime, time)) and _zone(value) != _zone(twin):
        return "another time zone"
    return ()


def _zone(value: datetime | time) -> tuple[Any, Any]:
    """Return the offset of a time, and the name of its zone if that has its own rules."""
    return value.utcoffset(), getattr(value.tzinfo, "key", None)


def _types(members: Collection[Any]) -> set[type]:
    """Return the types of some members, with one for all numbers."""
    return {float if type(each) in _NUMBERS else type(each) for each in members}


@lru_cache(maxsize=1024)
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a class's fields; `None` for a class without declared ones."""
    if hasattr(kind, "__struct_fields__"):
        return tuple(kind.__struct_fields__)
    if hasattr(kind, "__pydantic_fields__") and hasattr(kind, "__pydantic_private__"):
        return (*kind.__pydantic_fields__, *_BESIDE_FIELDS)
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(each.name for each in kind.__attrs_attrs__)
    if hasattr(kind, "__dataclass_fields__"):
        return tuple(each.name for each in fields(kind))
    return None
