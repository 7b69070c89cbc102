"""Types of other libraries that a key can be built from, known by name: nothing is imported.

An exact match is needed, because a subclass may hold more than its base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

# Values are of any type the caller's function takes, hence `Any`.
Converter = Callable[[Any], Any]


def type_name(kind: type) -> str:
    """Return the name of a type for an error: with its module, unless it is built in.

    >>> from decimal import Decimal
    >>> type_name(int), type_name(Decimal)
    ('int', 'decimal.Decimal')
    """
    module, name = kind.__module__, kind.__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def equal_builtin(value: object) -> object:
    """Return the built-in value equal to a NumPy number or text; `NotImplemented` for others."""
    kind = type(value)
    if kind.__module__ != "numpy" or kind.__qualname__ not in _NUMPY:
        return NotImplemented
    builtin: object = value.item()  # type: ignore[attr-defined]  # all of these have it
    return builtin if type(builtin) in _BUILT_IN else NotImplemented


def to_builtins(value: object) -> object:
    """Return a value's state as built-in types; `NotImplemented` for an unknown type.

    For a multi-dict that is every value of every name, in order.
    """
    kind = type(value)
    name = (_package(kind), kind.__qualname__)
    convert = _CONVERTERS.get(name)
    if convert is None or getattr(value, "__dict__", {}).keys() - _OWN_ATTRIBUTES[name[0]]:
        return NotImplemented
    return convert(value)


def standard_type(value: object) -> str | None:
    """Return the path of the standard type that a value's type stands in for, if there is one."""
    kind = type(value)
    return _STAND_INS.get((_package(kind), kind.__qualname__))


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _items(value: Any) -> list[Any]:
    return [(_text(name), each) for name, each in value.items()]


def _text(value: str) -> str:
    """Return the plain text of a `str` of any subclass, such as multidict's `istr`."""
    return str.__str__(value)


def _werkzeug_items(value: Any) -> list[Any]:
    return list(value.items(multi=True))


def _query_dict(value: Any) -> list[Any]:
    return [value.encoding, list(value.lists())]


_BUILT_IN: Final = (bool, int, float, str, bytes)
_NUMPY: Final = frozenset(
    [
        "bool",
        "bool_",
        "int8",
        "int16",
        "int32",
        "int64",
        "intc",
        "longlong",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "uintc",
        "ulonglong",
        "float16",
        "float32",
        "float64",
        "str_",
        "bytes_",
    ]
)
_CONVERTERS: Final[dict[tuple[str, str], Converter]] = {
    ("django", "MultiValueDict"): lambda value: list(value.lists()),
    ("django", "QueryDict"): _query_dict,
    ("django", "SafeString"): _text,
    ("markupsafe", "Markup"): _text,
    ("multidict", "CIMultiDict"): _items,
    ("multidict", "CIMultiDictProxy"): _items,
    ("multidict", "MultiDict"): _items,
    ("multidict", "MultiDictProxy"): _items,
    ("starlette", "FormData"): lambda value: value.multi_items(),
    ("starlette", "Headers"): lambda value: value.raw,
    ("starlette", "ImmutableMultiDict"): lambda value: value.multi_items(),
    ("starlette", "MultiDict"): lambda value: value.multi_items(),
    ("starlette", "MutableHeaders"): lambda value: value.raw,
    ("starlette", "QueryParams"): lambda value: value.multi_items(),
    ("werkzeug", "CombinedMultiDict"): _werkzeug_items,
    ("werkzeug", "Headers"): list,
    ("werkzeug", "ImmutableMultiDict"): _werkzeug_items,
    ("werkzeug", "ImmutableOrderedMultiDict"): _werkzeug_items,
    ("werkzeug", "MultiDict"): _werkzeug_items,
    ("werkzeug", "OrderedMultiDict"): _werkzeug_items,
    ("zoneinfo", "ZoneInfo"): lambda zone: zone.key or NotImplemented,
}
# The attributes that instances have by themselves; an instance with others holds more than its value.
_OWN_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    "django": frozenset({"_encoding", "_mutable"}),
    "markupsafe": frozenset(),
    "multidict": frozenset(),
    "starlette": frozenset({"_dict", "_list"}),
    "werkzeug": frozenset({"_first_bucket", "_hash_cache", "_last_bucket", "_list", "dicts"}),
    "zoneinfo": frozenset(),
}
_STAND_INS: Final = {
    ("asyncpg", "UUID"): "uuid.UUID",
    ("freezegun", "FakeDate"): "datetime.date",
    ("freezegun", "FakeDatetime"): "datetime.datetime",
}
