"""What came of making a value, for whoever made it and for all who waited for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from shardcache.core.commands import Payload
from shardcache.operations.progress import Progress

NOT_MADE: Final = object()


class Outcome(NamedTuple):
    """A value as its maker has it (or `NOT_MADE` here), as it is stored, or the error instead.

    It is `late` when it says no more than that its own caller has waited for so long. `progress` is
    that of the flight it comes from.
    """

    value: Any  # the caller's own, as are all values
    payload: Payload | None = None
    error: Exception | None = None
    late: bool = False
    progress: Progress | None = None

    @property
    def shareable(self) -> bool:
        """Return whether others may have it.

        What cannot be copied belongs to whose call made it: of an iterator the second finds nothing.
        """
        return self.error is not None or self.payload is not None


def failed(error: Exception) -> Outcome:
    """Give the outcome of a making that raised."""
    return Outcome(NOT_MADE, None, error)


def read(payload: Payload) -> Outcome:
    """Give the outcome that somebody else has made and stored."""
    return Outcome(NOT_MADE, payload)


def reraised(error: Exception) -> Exception:
    """Give an exception equal to `error` with a traceback of its own, to be raised once more.

    One that cannot be copied is given itself.
    """
    twin = _twin(error, copy.copy) or _twin(error, _made_again)
    if twin is None:
        return error.with_traceback(None)
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(None)


def _twin(error: Exception, copied: Callable[[Exception], Exception]) -> Exception | None:
    """Give a copy of `error` if it is one."""
    try:
        twin = copied(error)
        alike = type(twin) is type(error) and twin.args == error.args and str(twin) == str(error)
    except Exception:  # noqa: BLE001 - the copying is the user's code, and may raise anything
        return None
    return twin if alike and twin is not error else None


def _made_again(error: Exception) -> Exception:
    """Give a copy without calling `__init__`, which may want other arguments than were kept."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin


def described(error: Exception) -> tuple[str, Sequence[Any]]:
    """Give what is stored of an exception: the path of its type, and its arguments."""
    return _path(type(error)), list(error.args)


def restored(stored: Any, kinds: Sequence[type[Exception]]) -> Exception | None:
    """Give the exception of such a description, if it is of one of `kinds`; nothing is imported."""
    if not (isinstance(stored, (list, tuple)) and len(stored) == 2):  # noqa: PLR2004
        return None
    path, arguments = stored
    if not isinstance(arguments, (list, tuple)):
        return None
    for kind in _with_subclasses(kinds):
        if _path(kind) == path:
            try:
                error = kind.__new__(kind, *arguments)
            except Exception:  # noqa: BLE001 - the user's code; the error is then not kept
                return None
            error.args = tuple(arguments)
            return error
    return None


def _with_subclasses(kinds: Sequence[type[Exception]]) -> list[type[Exception]]:
    every = list(kinds)
    for kind in every:  # grows meanwhile
        every.extend(kind.__subclasses__())
    return every


def _path(kind: type[Exception]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
