"""Pydantic models, and whatever else Pydantic validates, through its `TypeAdapter`."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final
from uuid import UUID

from shardcache.core.own_types.declared import DeclaredType, Form, UnsupportedTypeError, type_text

# Types and values are the caller's own, hence `Any`.

OLDEST: Final = (2, 11)  # its `by_name` reads fields by their names, whatever their aliases are

_SCALARS: Final = frozenset(
    {str, int, float, bool, type(None), bytes, datetime, date, time, timedelta, Decimal, UUID}
)
_SENTENCE: Final = re.compile(r"\. |\n")  # further ones are advice about other things
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})


def declare(kind: Any) -> DeclaredType:
    """Return the type `kind`; raise `UnsupportedTypeError` if Pydantic cannot handle it.

    Raise `ImportError` if Pydantic is not installed.
    """
    import pydantic  # noqa: PLC0415 - few programs use it

    version = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
    if version < OLDEST:
        raise UnsupportedTypeError(f"it needs Pydantic 2.11 or newer, not {pydantic.VERSION}")
    try:
        adapter: Any = pydantic.TypeAdapter(kind)
        complete = adapter.pydantic_complete
    except Exception as error:  # reading an annotation can raise anything
        raise UnsupportedTypeError(f"Pydantic: {_SENTENCE.split(str(error))[0]}") from error
    if not complete:
        raise UnsupportedTypeError("Pydantic: it names a type that is not defined yet")
    dump = partial(adapter.dump_python, round_trip=True, by_alias=False, warnings="error")
    load = partial(adapter.validate_python, strict=False, by_alias=False, by_name=True)
    dump_json = partial(dump, mode="json")
    return DeclaredType(
        type_text(kind),
        Form((dump_json, lambda value: _plain(dump(value))), load),
        Form((dump_json,), load),
        _explain,
    )


def _plain(value: Any) -> Any:
    """Return what Pydantic dumped for Python, with nothing in it that the codec `msgpack` lacks."""
    kind: Any = type(value)
    if kind in _SCALARS:
        return _with_plain_zone(value) if kind is datetime else value
    if kind is dict:
        return {_plain(key): _plain(each) for key, each in value.items()}
    if kind in _SEQUENCES:
        return kind(map(_plain, value))
    if isinstance(value, Enum):
        return _plain(value.value)
    return _dump_leaf(kind)(value)


@lru_cache(maxsize=256)
def _dump_leaf(kind: type) -> Any:
    """Return what dumps values of a type that Pydantic leaves as they are for Python, such as a path."""
    import pydantic  # noqa: PLC0415 - only with Pydantic

    return partial(pydantic.TypeAdapter(kind).dump_python, mode="json", warnings="error")


def _with_plain_zone(value: datetime) -> datetime:
    """Return a datetime with a zone of the standard library in place of Pydantic's own."""
    zone = value.tzinfo
    if zone is None or type(zone).__module__.partition(".")[0] != "pydantic_core":
        return value
    offset = zone.utcoffset(value)
    return value if offset is None else value.replace(tzinfo=timezone(offset))


def _explain(error: Exception) -> str:
    import pydantic  # noqa: PLC0415 - only with Pydantic

    if not isinstance(error, pydantic.ValidationError):
        return type(error).__name__
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = faults[0]
    # Other places may hold keys of a dict, which are data.
    field = f" {first['loc'][-1]!r}" if first["type"] == "missing" else ""
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{first['type']}{field}{more}"
