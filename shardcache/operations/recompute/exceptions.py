"""Exceptions that are stored in place of a value, and raised again for every caller."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

# The arguments and attributes of an exception are of any type, hence `Any`.

NOTES: Final = "__notes__"  # the attribute to which `add_note` appends

_MEMBERS: Final = (GetSetDescriptorType, MemberDescriptorType)


def copy_to_raise(error: Exception) -> Exception:
    """Return a copy of `error` to be raised again, whose traceback shows the same origin.

    An exception that cannot be copied is returned itself.
    """
    twin = _copy(error, copy.copy) or _copy(error, _copy_without_init)
    if twin is None:
        return error
    twin.__context__ = error.__context__
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)


def _copy(error: Exception, copied: Callable[[Exception], Exception]) -> Exception | None:
    """Return a copy of `error`; `None` if `copied` does not return an equal one."""
    try:
        twin = copied(error)
    except Exception:  # noqa: BLE001 - the copying is the user's code, and may raise anything
        return None
    return twin if twin is not error and equal(twin, error) else None


def _copy_without_init(error: Exception) -> Exception:
    """Return a copy without calling `__init__`, which may need other arguments than `args`."""
    return _build(type(error), error.args, _state(error))


def describe(error: Exception) -> list[Any]:
    """Return the stored form of an exception: the path of its type, its arguments, its attributes.

    It is a list, because not every codec takes tuples.
    """
    return [_path(type(error)), list(error.args), _state(error)]


def restore(stored: Any, kinds: Sequence[type[Exception]]) -> Exception | None:
    """Return the exception that a description stands for, if it is of one of `kinds`. Import nothing."""
    if not (isinstance(stored, (list, tuple)) and len(stored) == 3):  # noqa: PLR2004
        return None
    path, arguments, state = stored
    if not (isinstance(arguments, (list, tuple)) and isinstance(state, dict)):
        return None
    for kind in _with_subclasses(kinds):
        if _path(kind) == path:
            try:
                return _build(kind, arguments, state)
            except Exception:  # noqa: BLE001 - the user's code, or an attribute that it lacks
                return None
    return None


def equal(one: Exception, other: Exception) -> bool:
    """Return whether two exceptions are the same to code that catches them.

    That compares type, text, arguments and attributes, not tracebacks and causes.
    """
    try:
        return (
            type(one) is type(other)
            and _same(one.args, other.args)
            and _same(_state(one), _state(other))
            and str(one) == str(other)
        )
    except Exception:  # noqa: BLE001 - the comparing is the user's code, and may raise anything
        return False


def _build(kind: type[Exception], arguments: Sequence[Any], state: Mapping[str, Any]) -> Exception:
    """Return an exception with these arguments and attributes, without calling its `__init__`."""
    error = kind.__new__(kind, *arguments)
    error.args = tuple(arguments)
    members = set(_members(kind))
    for name, value in state.items():
        if name in members:
            setattr(error, name, value)
        elif name == NOTES or not name.startswith("__"):
            vars(error)[name] = value
        else:
            raise ValueError(name)
    return error


def _state(error: Exception) -> dict[str, Any]:
    """Return an exception's attributes: those in its dict, in slots, and in members of C types."""
    members = {name: getattr(error, name, None) for name in _members(type(error))}
    return {name: value for name, value in members.items() if value is not None} | vars(error)


def _members(kind: type[Exception]) -> Iterator[str]:
    for base in kind.__mro__[: kind.__mro__.index(BaseException)]:
        for name, member in vars(base).items():
            if isinstance(member, _MEMBERS) and not name.startswith("__"):
                yield name


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same type, and so are the values within."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _with_subclasses(kinds: Sequence[type[Exception]]) -> list[type[Exception]]:
    every = list(kinds)
    for kind in every:  # the list grows while it is walked
        every.extend(kind.__subclasses__())
    return every


def _path(kind: type[Exception]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
