"""Dataclasses, enums, named tuples, typed dicts, attrs classes and Structs, through msgspec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID

from shardcache.core.codecs.subclasses import SUBCLASSES, code_of
from shardcache.core.own_types.declared import DeclaredType, Form, UnsupportedTypeError, type_text

# Types and values are the caller's own, hence `Any`.

# What msgpack keeps by marks, which cost it more time than msgspec needs to make text of these.
_RICH: Final = (bytes, datetime, date, time, timedelta, Decimal, UUID)

# What may be said of a failure: field names, types and places. Other texts may quote a value.
_FAULT: Final = re.compile(r"Expected `[^`]*`, got `[^`]*`|Object missing required field `[^`]*`")
_PLACE: Final = re.compile(r" - at `\$[\w.\[\]]*`\Z")


def declare(kind: Any) -> DeclaredType:
    """Return the type `kind`; raise `UnsupportedTypeError` if msgspec cannot handle it.

    Raise `ImportError` if msgspec is not installed.
    """
    import msgspec  # noqa: PLC0415 - few programs use it
    from msgspec.inspect import type_info  # noqa: PLC0415 - as above

    try:
        unknown = [each for each in _custom_types(type_info(kind)) if not code_of(each)]
        with suppress(msgspec.ValidationError):
            msgspec.convert(None, kind)  # finds what `type_info` accepts, and `convert` does not
    except Exception as error:  # reading an annotation can raise anything
        raise UnsupportedTypeError(f"msgspec: {error}") from error
    if unknown:
        raise UnsupportedTypeError(f"msgspec does not know {type_text(unknown[0])}")
    return DeclaredType(type_text(kind), _rich_form(kind), _json_form(kind), _explain)


def _rich_form(kind: Any) -> Form:
    import msgspec  # noqa: PLC0415 - as above

    dump = partial(msgspec.to_builtins, enc_hook=_to_builtin)
    return Form(
        (partial(dump, builtin_types=(bytes,)), partial(dump, builtin_types=_RICH)),
        partial(msgspec.convert, type=kind, builtin_types=(), dec_hook=_restore),
    )


def _json_form(kind: Any) -> Form:
    import msgspec  # noqa: PLC0415 - as above

    encode, decode = msgspec.json.Encoder(enc_hook=_to_builtin).encode, msgspec.json.decode
    return Form(
        (lambda value: decode(encode(value)),),  # `to_builtins` leaves tuples as they are
        partial(msgspec.convert, type=kind, builtin_types=(), str_keys=True, dec_hook=_restore),
    )


def _custom_types(info: Any) -> Iterator[Any]:
    """Yield the types within a type that msgspec leaves to its hooks."""
    import msgspec  # noqa: PLC0415 - as above
    from msgspec.inspect import CustomType  # noqa: PLC0415 - as above

    seen: set[int] = set()
    pending = [info]
    while pending:
        part = pending.pop()
        if isinstance(part, CustomType):
            yield part.cls
        elif isinstance(part, (tuple, msgspec.Struct)) and id(part) not in seen:
            seen.add(id(part))
            names = () if isinstance(part, tuple) else part.__struct_fields__
            pending += part if isinstance(part, tuple) else (getattr(part, each) for each in names)


def _to_builtin(value: Any) -> Any:
    code = code_of(type(value))
    if not code:
        raise TypeError(f"msgspec does not know {type_text(type(value))}")
    return SUBCLASSES[code].to_builtin(value)


def _restore(kind: type, value: Any) -> Any:
    return SUBCLASSES[code_of(kind)].restore(value)


def _explain(error: Exception) -> str:
    import msgspec  # noqa: PLC0415 - as above

    if not isinstance(error, msgspec.ValidationError):
        return (
            f"{type(error).__name__}: {error}" if type(error) is TypeError else type(error).__name__
        )
    text = str(error)
    fault, place = _FAULT.match(text), _PLACE.search(text)
    return (fault[0] if fault else "ValidationError") + (place[0] if place else "")
