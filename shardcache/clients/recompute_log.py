"""The log of recomputes and cached values that failed without an error for any caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from shardcache.backends.locking import ProcessLock
from shardcache.errors import DecodeError, EncodeError
from shardcache.log import log

LINE_EVERY: Final = 60.0  # seconds between two lines about the same trouble of one function
MAX_FUNCTIONS: Final = 1_000  # functions that are logged apart; further ones are logged as one
OTHERS: Final = "other functions"


class RecomputeLog:
    """Logs the first trouble of a kind of each function, then one line a minute with their number.

    A line names the type of a function's exception only: its text and arguments may hold private data.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        # By trouble and function: the time of the last line, and how often it happened since.
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}
        self._not_kept: set[tuple[str, type[Exception]]] = set()

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Count a refresh that failed; log a line when one is due."""
        self._note("refreshing", function, _full_name(type(error)), "the cached value is served")

    def result_not_stored(self, function: str, error: EncodeError) -> None:
        """Count a result that could not be stored; log a line when one is due."""
        self._note("storing the result of", function, str(error), "it is returned uncached")

    def value_not_valid(self, function: str, error: DecodeError) -> None:
        """Count a value that is not of the declared type; log a line when one is due."""
        self._note("reading the value of", function, str(error), "it is recomputed")

    def _note(self, doing: str, function: str, why: str, so: str) -> None:
        now = self._clock()
        with self._lock.current():
            if (doing, function) not in self._logged and len(self._logged) >= MAX_FUNCTIONS:
                function = OTHERS
            last, count = self._logged.get((doing, function), (None, 0))
            count += 1
            due = last is None or now - last >= LINE_EVERY
            self._logged[doing, function] = (now, 0) if due or last is None else (last, count)
        if last is None:
            log.warning("%s %s failed: %s; %s", doing, function, why, so)
        elif due:
            seconds = now - last
            log.warning(
                "%s %s failed %d times in %.0f s: %s; %s", doing, function, count, seconds, why, so
            )

    def error_not_kept(self, function: str, kind: type[Exception]) -> None:
        """Log the first exception of each type that cannot be cached for a function."""
        with self._lock.current():
            known = (function, kind) in self._not_kept or len(self._not_kept) >= MAX_FUNCTIONS
            if not known:
                self._not_kept.add((function, kind))
        if not known:
            log.warning(
                "%s: cache_errors cannot cache %s: it could not be restored with the same text,"
                " arguments and attributes",
                function,
                _full_name(kind),
            )


def _full_name(kind: type[Exception]) -> str:
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
