"""The state that all cached values of one client share: counters, and refreshes in progress."""

from __future__ import annotations

from typing import Final, Protocol

from shardcache.errors import DecodeError, EncodeError
from shardcache.operations.recompute.counters import RecomputeCounters

MOST_MARKS: Final = 1024
LOST_PAUSE: Final = 0.05  # seconds before this process tries again to refresh a value


class RefreshGate:
    """The values that this process refreshes, or that another process was just seen to refresh.

    Times are monotonic seconds. The gate only saves commands: the node of a value decides.
    """

    __slots__ = ("_losing", "_until")

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}
        self._losing: dict[bytes, tuple[float, float]] = {}  # time of the first and the last loss

    def try_enter(self, name: bytes, now: float, seconds: float) -> bool:
        """Return whether the caller may try; no other caller of this process does for `seconds`."""
        if self._until.get(name, 0.0) > now:
            return False
        if len(self._until) >= MOST_MARKS:
            self._until = {each: until for each, until in list(self._until.items()) if until > now}
        self._until[name] = now + seconds
        return True

    def clear(self, name: bytes) -> None:
        """Allow another try of this process at once."""
        self._until.pop(name, None)
        self._losing.pop(name, None)

    def back_off(self, name: bytes, now: float, patience: float) -> bool:
        """Allow another try after a pause; return whether this process has lost for too long.

        That is so once every try within `patience` seconds was lost: no refresh may take that long,
        so the mark in the way has no holder, and might stay for ever.
        """
        self._until[name] = now + LOST_PAUSE
        since, last = self._losing.get(name, (now, now))
        if now - last > patience:
            since = now
        if len(self._losing) >= MOST_MARKS:
            self._losing.clear()
        self._losing[name] = since, now
        return now - since > patience


class Notes(Protocol):
    """Where failures that reach no caller are reported, with the function's name."""

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Report that an old value was served because its recompute failed."""

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Report that an exception was to be stored, and cannot be."""

    def result_not_stored(self, function: str, error: EncodeError) -> None:
        """Report that a result was returned, and cannot be stored."""

    def value_not_valid(self, function: str, error: DecodeError) -> None:
        """Report that a stored value is not of the declared type, and was read as a miss."""


class NoNotes:
    """Notes that are dropped."""

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Do nothing."""

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Do nothing."""

    def result_not_stored(self, function: str, error: EncodeError) -> None:
        """Do nothing."""

    def value_not_valid(self, function: str, error: DecodeError) -> None:
        """Do nothing."""


class Protection:
    """The shared state of one client's cached values.

    `counters` counts for all of them, `direct` for `get_or_set` alone.
    """

    __slots__ = ("counters", "direct", "notes", "refresh_gate")

    def __init__(self, notes: Notes | None = None) -> None:
        self.notes: Notes = NoNotes() if notes is None else notes
        self.refresh_gate = RefreshGate()
        self.counters = RecomputeCounters()
        self.direct = RecomputeCounters()
