"""The fields of named tuples, dataclasses and attrs classes, and whether they are all there is."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any, Final

# Flags of types, from CPython's object.h: made by a class statement, and immutable.
_HEAP: Final = 1 << 9
_IMMUTABLE: Final = 1 << 8


@lru_cache(maxsize=1024)
def field_names(kind: type) -> tuple[str, ...] | None:
    """Return the names of a class's fields; `None` if it has none, or instances hold more state.

    >>> from collections import namedtuple
    >>> field_names(namedtuple("Point", "x y")), field_names(tuple)
    (('x', 'y'), None)
    """
    names = _declared_fields(kind)
    if names is None:
        return None
    for each in kind.__mro__:
        if each is object or (each is tuple and names is getattr(kind, "_fields", None)):
            continue
        if not each.__flags__ & _HEAP or each.__flags__ & _IMMUTABLE:
            return None  # the state of a class written in C cannot be seen
        slots = (name for name, value in vars(each).items() if type(value) is MemberDescriptorType)
        if not set(names).issuperset(slots):
            return None
    return names


def has_more(value: object, names: tuple[str, ...]) -> bool:
    """Return whether an instance has attributes that are not fields.

    A `functools.cached_property` does not count, because it follows from the fields.
    """
    extra = getattr(value, "__dict__", {}).keys() - names
    return any(not isinstance(getattr(type(value), name, None), cached_property) for name in extra)


def _declared_fields(kind: Any) -> tuple[str, ...] | None:  # any class
    """Return the fields declared by the class itself, or by its named tuple; not inherited ones."""
    own = vars(kind)
    if "__dataclass_fields__" in own:
        return tuple(field.name for field in fields(kind))
    if "__attrs_attrs__" in own:
        return tuple(field.name for field in kind.__attrs_attrs__)
    if issubclass(kind, tuple) and any(
        each.__bases__ == (tuple,) and "_fields" in vars(each) for each in kind.__mro__
    ):
        names: tuple[str, ...] = kind._fields
        return names
    return None
