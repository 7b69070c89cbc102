"""Credentials kept out of the local variables that error reporters collect from a traceback."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from types import FrameType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_PACKAGE: Final = __name__.partition(".")[0]
# What may be suspended: to clear such a frame would end what is still to go on.
_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def takes_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` such that an error it raises leaves no secret in any local variable.

    Its arguments, and whatever this package has made of them, are dropped from the frames of the
    traceback; lines and functions stay.
    """

    @wraps(function)
    def discreet(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            clear_frames(error)
            del args, kwargs
            raise

    return discreet


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of this package's finished frames, in the error's whole chain.

    Generators and coroutines are left alone, for they may go on: they must not hold a secret when
    they raise.
    """
    for link in _chain(error):
        trace = link.__traceback__
        while trace is not None:
            if _is_ours(trace.tb_frame):
                with contextlib.suppress(RuntimeError):  # it is still running
                    trace.tb_frame.clear()
            trace = trace.tb_next


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return str(name).partition(".")[0] == _PACKAGE and not frame.f_code.co_flags & _RESUMABLE


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and contexts, and the members of groups among them, each once."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        beside = (link.__cause__, link.__context__)
        pending += [other for other in beside if other is not None]
        if isinstance(link, BaseExceptionGroup):
            pending += link.exceptions
