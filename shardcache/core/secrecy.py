"""Keep credentials out of the local variables that error reporters collect from a traceback."""

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
# Frames of generators and coroutines may still be suspended, and clearing one would end it.
_RESUMABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def takes_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` such that an error it raises leaves no secret in any local variable.

    Its arguments, and all values that this package derived from them, are dropped from the frames of
    the traceback. Lines and functions stay.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            clear_frames(error)
            del args, kwargs
            raise

    return wrapper


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of this package's finished frames, in the error's whole chain.

    Generators and coroutines are left alone, because they may go on: they must not hold a secret
    when they raise.
    """
    for each in _chain(error):
        trace = each.__traceback__
        while trace is not None:
            if _is_ours(trace.tb_frame):
                with contextlib.suppress(RuntimeError):  # the frame is still running
                    trace.tb_frame.clear()
            trace = trace.tb_next


def _is_ours(frame: FrameType) -> bool:
    """Return whether a frame is of this package, or of a plugin named after it, and has ended."""
    name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    ours = name == _PACKAGE or name.startswith(f"{_PACKAGE}_")
    return ours and not frame.f_code.co_flags & _RESUMABLE


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and contexts, and the members of exception groups, each once."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
