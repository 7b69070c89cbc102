"""An answer that one thread gives and others await, without a lock."""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("shardcache")


class Answer(Generic[T]):
    """A result that is still to come, or the error in its place.

    It is no `concurrent.futures.Future`: what a signal raises in one that waits may leave its lock locked,
    and kazoo's thread, which is to settle it, would stand still for ever. All it uses is atomic.
    """

    __slots__ = ("_callbacks", "_outcomes")

    def __init__(self) -> None:
        self._outcomes: list[tuple[Any, BaseException | None]] = []  # the first one counts
        self._callbacks: deque[Callable[[Answer[T]], object]] = deque()

    def done(self) -> bool:
        """Return whether it has come."""
        return bool(self._outcomes)

    def set_result(self, value: T) -> None:
        """Settle it, unless it is settled."""
        self._outcomes.append((value, None))
        self._call_back()

    def set_exception(self, error: BaseException) -> None:
        """Settle it by an error, unless it is settled."""
        self._outcomes.append((None, error))
        self._call_back()

    def add_done_callback(self, callback: Callable[[Answer[T]], object]) -> None:
        """Call `callback` once it has come, in the thread that settles it, or now; its errors are logged."""
        self._callbacks.append(callback)
        if self._outcomes:
            self._call_back()

    def exception(self) -> BaseException | None:
        """Return its error, if it has one; it must have come."""
        return self._outcomes[0][1]

    def result(self, seconds: float = 0.0) -> T:
        """Wait up to `seconds`; return the result, or raise its error or a `TimeoutError`."""
        if not self._outcomes:
            waiter: queue.SimpleQueue[None] = queue.SimpleQueue()
            self.add_done_callback(lambda _: waiter.put(None))
            try:
                waiter.get(timeout=max(0.0, seconds))
            except queue.Empty:
                raise TimeoutError from None
        value, error = self._outcomes[0]
        if error is not None:
            raise error
        result: T = value
        return result

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()  # each for one thread
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                log.exception("what was to follow an answer of ZooKeeper failed")
