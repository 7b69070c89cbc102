"""The log of what goes wrong with computed values and reaches no caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from shardcache.backends.locking import ProcessLock

EVERY: Final = 60.0  # seconds between two lines about the refreshes of one function
MOST: Final = 1_000  # functions that are told apart; more are told as one
OTHERS: Final = "other functions"

log = logging.getLogger("shardcache")


class RecomputeLog:
    """Writes a line about the first failed refresh of each function, then one a minute with its count.

    Of an exception it names the type: its text and arguments may hold what is nobody else's business.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._told: dict[str, tuple[float, int]] = {}  # when last, and how often since
        self._unkept: set[tuple[str, type[Exception]]] = set()

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Count a refresh that failed; write a line when it is time for one."""
        now, kind = self._clock(), _named(type(error))
        with self._lock.own():
            if function not in self._told and len(self._told) >= MOST:
                function = OTHERS
            last, count = self._told.get(function, (None, 0))
            count += 1
            due = last is None or now - last >= EVERY
            self._told[function] = (now, 0) if due or last is None else (last, count)
        if last is None:
            log.warning("refreshing %s failed: %s", function, kind)
        elif due:
            log.warning(
                "refreshing %s failed %d times in %.0f s: %s", function, count, now - last, kind
            )

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Write a line about the first exception of each type that a function cannot keep."""
        with self._lock.own():
            known = (function, kind) in self._unkept or len(self._unkept) >= MOST
            if not known:
                self._unkept.add((function, kind))
        if not known:
            log.warning(
                "%s: cache_errors does not keep %s: it would not come back with the same text,"
                " arguments and attributes",
                function,
                _named(kind),
            )


def _named(kind: type[Exception]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
