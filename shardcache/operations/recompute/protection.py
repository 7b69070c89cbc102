"""What one client keeps in mind of all its computed values: counters, and who was elected."""

from __future__ import annotations

from typing import Final, Protocol

from shardcache.operations.recompute.counters import RecomputeCounters

MOST_MARKS: Final = 1024
LOST_PAUSE: Final = 0.05  # seconds before one who was not elected stands again


class RefreshGate:
    """Which values this process is making anew, or was just told that another does.

    Moments are monotonic seconds. It spares questions: the node of a value has the last word.
    """

    __slots__ = ("_losing", "_until")

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}
        self._losing: dict[bytes, tuple[float, float]] = {}  # since when, and when last

    def try_enter(self, name: bytes, now: float, seconds: float) -> bool:
        """Return whether to stand for election; nobody else of this process does for so long."""
        if self._until.get(name, 0.0) > now:
            return False
        if len(self._until) >= MOST_MARKS:
            self._until = {each: until for each, until in list(self._until.items()) if until > now}
        self._until[name] = now + seconds
        return True

    def clear(self, name: bytes) -> None:
        """Let this process stand again at once."""
        self._until.pop(name, None)
        self._losing.pop(name, None)

    def back_off(self, name: bytes, now: float, patience: float) -> bool:
        """Let this process stand again in a while; return whether it has lost for too long.

        That is so once every election within `patience` seconds was lost: no holder may take so long,
        so what stands in the way is nobody's, and may stay for ever.
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
    """What a user must hear of, because no caller does. Functions are named."""

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Note that an old value was served because computing it again has failed."""

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Note that an exception was to be kept, and cannot be."""


class NoNotes:
    """Notes that nobody reads."""

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Do nothing."""

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Do nothing."""


class Protection:
    """What the computed values of one client have in common.

    `counters` counts for all of them, `direct` for those of `get_or_set`.
    """

    __slots__ = ("counters", "direct", "notes", "refresh_gate")

    def __init__(self, notes: Notes | None = None) -> None:
        self.notes: Notes = NoNotes() if notes is None else notes
        self.refresh_gate = RefreshGate()
        self.counters = RecomputeCounters()
        self.direct = RecomputeCounters()
