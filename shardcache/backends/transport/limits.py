"""When to dial a node that refuses new connections while others to it still work."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE: Final = (
    0.1  # seconds until the next dial after a refusal; each further refusal doubles it
)
LONGEST_PAUSE: Final = 2.0  # seconds
FORGOTTEN: Final = 60.0  # seconds after the last refusal for which dials go one at a time


class DialLimit:
    """The decision when one more connection may be dialed. Times are monotonic seconds.

    After a refusal connections are dialed one at a time, and each further refusal doubles the
    pause. Not thread-safe: callers hold a lock.

    >>> limit = DialLimit()
    >>> limit.record_refusal(10.0), limit.may_dial(10.05), limit.may_dial(10.1), limit.may_dial(10.1)
    (True, False, True, False)
    """

    __slots__ = ("_next", "_pause", "_since", "_trying")

    def __init__(self) -> None:
        self._since = float("-inf")  # when a connection was last refused
        self._next = 0.0  # when one may be dialed again
        self._pause = FIRST_PAUSE
        self._trying = False  # whether the last permitted dial has no outcome yet

    def record_refusal(self, now: float) -> bool:
        """Record that the server refused a connection; return whether it is the first of a series."""
        first = now - self._since >= FORGOTTEN
        if first:
            self._pause = FIRST_PAUSE
            self._next = now + self._pause
        elif self._trying:  # not one that was dialed together with the first
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._next = now + self._pause
        self._trying = False
        self._since = now
        return first

    def may_dial(self, now: float) -> bool:
        """Return whether a connection may be dialed now; if so, the next one has to wait."""
        if now - self._since >= FORGOTTEN:
            return True
        if now < self._next:
            return False
        self._next = now + self._pause
        self._trying = True
        return True

    def record_success(self) -> None:
        """Record that a new connection works: the next one may be dialed at once."""
        self._next = 0.0
        self._pause = FIRST_PAUSE
        self._trying = False
