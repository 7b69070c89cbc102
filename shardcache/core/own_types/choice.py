"""Which type a function declares for its results, and which library handles that type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final, get_args, get_origin, get_type_hints

from shardcache.core.own_types import by_msgspec, by_pydantic
from shardcache.core.own_types.declared import DeclaredType, UnsupportedTypeError, type_text
from shardcache.errors import ConfigurationError

# Types are any annotations, hence `Any`.

_MARKS_OF_FIELDS: Final = (
    "__attrs_attrs__",
    "__dataclass_fields__",
    "__struct_fields__",
    "__total__",  # of a typed dict
    "_fields",  # of a named tuple
)


def declare(kind: Any) -> DeclaredType:
    """Return a type with what handles it: Pydantic if a model is part of it, else msgspec.

    What msgspec cannot handle is left to Pydantic, if that is installed. Raise `ConfigurationError`
    if neither can, or if the library that is needed is not installed.
    """
    try:
        if any(map(_is_model, _parts(kind))):
            return _declare("pydantic", by_pydantic.declare, kind)
        try:
            return _declare("msgspec", by_msgspec.declare, kind)
        except UnsupportedTypeError as unsupported:
            return _declare_instead(kind, unsupported)
    except UnsupportedTypeError as error:
        raise ConfigurationError(
            f"returns: {type_text(kind)} is not a type that can be read back: {error}"
        ) from error


def declared_by(function: Callable[..., Any]) -> Any:
    """Return the annotation of a function's result: of what an `async def` returns when awaited.

    Raise `ConfigurationError` if it has none, or one that names what is not defined.
    """
    inner: Any = inspect.unwrap(function)
    annotations = getattr(function, "__annotations__", {})
    if "return" not in annotations:
        raise ConfigurationError(
            "returns=True: there is no return annotation; add one, or write returns=… with the type"
        )
    annotation = annotations["return"]
    alone = SimpleNamespace(__annotations__={"return": annotation})  # parameters may not resolve
    try:
        return get_type_hints(alone, inner.__globals__, include_extras=True)["return"]
    except Exception as error:  # evaluating an annotation can raise anything
        raise ConfigurationError(
            f"returns=True: the annotation {annotation!r} cannot be resolved ({error}); define its"
            " names above the function, or write returns=… with the type"
        ) from error


def _declare(extra: str, declare: Callable[[Any], DeclaredType], kind: Any) -> DeclaredType:
    try:
        return declare(kind)
    except ImportError as error:
        raise ConfigurationError(
            f"returns: {type_text(kind)} needs the extra `{extra}`: pip install {extra}"
        ) from error


def _declare_instead(kind: Any, unsupported: UnsupportedTypeError) -> DeclaredType:
    """Return a type that msgspec does not support, handled by Pydantic."""
    try:
        return by_pydantic.declare(kind)
    except ImportError:
        raise UnsupportedTypeError(
            f"{unsupported}; Pydantic may handle it, which is the extra `pydantic`: pip install pydantic"
        ) from None
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(f"{unsupported}; {error}") from None


def _is_model(part: object) -> bool:
    """Return whether this is a model or dataclass of Pydantic's."""
    return isinstance(part, type) and hasattr(part, "__pydantic_core_schema__")


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type, and all types within it."""
    seen: dict[int, Any] = {}
    pending = [kind]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        # The last is what a `type` statement stands for.
        pending += [get_origin(part), *get_args(part), getattr(part, "__value__", None)]
        if isinstance(part, type) and any(hasattr(part, mark) for mark in _MARKS_OF_FIELDS):
            pending += _annotations(part)


def _annotations(kind: type) -> list[Any]:
    try:
        return list(get_type_hints(kind, include_extras=True).values())
    except Exception:  # noqa: BLE001 - the library that handles the type says what is wrong
        return []
