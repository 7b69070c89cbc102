"""Types of other libraries whose value is all their state, recognised by name: nothing is imported.

Only these very classes are meant, never a subclass, which may hold more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

# Values are of whatever type the caller's function takes, hence `Any`.
Plainer = Callable[[Any], Any]


def type_name(kind: type) -> str:
    """Return what an error calls a type: with its module, unless it is built in.

    >>> from decimal import Decimal
    >>> type_name(int), type_name(Decimal)
    ('int', 'decimal.Decimal')
    """
    module, name = kind.__module__, kind.__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def equal_form(value: object) -> object:
    """Return the built-in value that a number or a text of NumPy equals; `NotImplemented` for others."""
    kind = type(value)
    if kind.__module__ != "numpy" or kind.__qualname__ not in _NUMPY:
        return NotImplemented
    plain: object = value.item()  # type: ignore[attr-defined]  # all of these have it
    return plain if type(plain) in _BUILT_IN else NotImplemented


def plain_form(value: object) -> object:
    """Return what a value is made of, as built-in types; `NotImplemented` for one that is not known.

    For multi-dicts that is every value of every name, in order.
    """
    kind = type(value)
    name = (_package(kind), kind.__qualname__)
    plainer = _PLAIN.get(name)
    if plainer is None or getattr(value, "__dict__", {}).keys() - _OWN[name[0]]:
        return NotImplemented
    return plainer(value)


def same_as(value: object) -> str | None:
    """Return the standard type that a value's type stands in for, by its path, if there is one."""
    kind = type(value)
    return _STAND_INS.get((_package(kind), kind.__qualname__))


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _items(value: Any) -> list[Any]:
    return [(_text(name), each) for name, each in value.items()]


def _text(value: str) -> str:
    """Return the text alone of a `str` of any subclass, such as multidict's `istr`."""
    return str.__str__(value)


def _all_of_werkzeug(value: Any) -> list[Any]:
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
_PLAIN: Final[dict[tuple[str, str], Plainer]] = {
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
    ("werkzeug", "CombinedMultiDict"): _all_of_werkzeug,
    ("werkzeug", "Headers"): list,
    ("werkzeug", "ImmutableMultiDict"): _all_of_werkzeug,
    ("werkzeug", "ImmutableOrderedMultiDict"): _all_of_werkzeug,
    ("werkzeug", "MultiDict"): _all_of_werkzeug,
    ("werkzeug", "OrderedMultiDict"): _all_of_werkzeug,
    ("zoneinfo", "ZoneInfo"): lambda zone: zone.key or NotImplemented,
}
# What instances of these have as attributes; one that was given others holds more than its values.
_OWN: Final[dict[str, frozenset[str]]] = {
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
