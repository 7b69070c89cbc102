"""The log of recomputes that failed without an error for any caller."""

from __future__ import annotations

import logging
import time
from typing import Final

from shardcache.backends.locking import ProcessLock

LINE_EVERY: Final = 60.0  # seconds between two lines about the refreshes of one function
MAX_FUNCTIONS: Final = 1_000  # functions that are logged apart; further ones are logged as one
OTHERS: Final = "other functions"

log = logging.getLogger("shardcache")


class RecomputeLog:
    """Logs the first failed refresh of each function, then one line a minute with their number.

    A line names the type of an exception only: its text and arguments may hold private data.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._logged: dict[str, tuple[float, int]] = {}  # time of the last line, failures since
        self._not_kept: set[tuple[str, type[Exception]]] = set()

    def refresh_failed(self, function: str, error: Exception) -> None:
        """Count a refresh that failed; log a line when one is due."""
        now, kind = time.monotonic(), _full_name(type(error))
        with self._lock.current():
            if function not in self._logged and len(self._logged) >= MAX_FUNCTIONS:
                function = OTHERS
            last, count = self._logged.get(function, (None, 0))
            count += 1
            due = last is None or now - last >= LINE_EVERY
            self._logged[function] = (now, 0) if due or last is None else (last, count)
        if last is None:
            log.warning("refreshing %s failed: %s; the cached value is served", function, kind)
        elif due:
            log.warning(
                "refreshing %s failed %d times in %.0f s: %s; the cached value is served",
                function,
                count,
                now - last,
                kind,
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
