"""The errors of a lock provider that its protocol does not know: counted, logged and told to observers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from shardcache.backends.locking import ProcessLock
from shardcache.core.events import LockProviderFailed, Observers
from shardcache.errors import printable
from shardcache.log import log

LINE_EVERY: Final = 60.0  # seconds between two lines about the same call and error


class LockFailures:
    """Logs the first error of each method and type, then one line a minute with their number.

    A release that fails raises nothing, so that an exception of the caller's own survives. It must not
    go unseen for that: the lock may last until its ttl is over. `count` is the number of all errors.
    """

    def __init__(self, observers: Observers, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._observers = observers
        self._clock = clock
        self._lock = ProcessLock()
        # By method and type: the time of the last line, and how often it happened since.
        self._logged: dict[tuple[str, type[Exception]], tuple[float, int]] = {}

    def note(self, event: LockProviderFailed) -> None:
        """Count an error, log a line when one is due, and notify the observers."""
        now, kind = self._clock(), (event.call, type(event.error))
        with self._lock.current():
            self.count += 1
            last, count = self._logged.get(kind, (None, 0))
            count += 1
            due = last is None or now - last >= LINE_EVERY
            self._logged[kind] = (now, 0) if due or last is None else (last, count)
        what = printable(repr(event.error))
        if last is None:
            log.warning("lock provider failed in %s: %s", event.call, what, exc_info=event.error)
        elif due:
            log.warning(
                "lock provider failed in %s %d times in %.0f s: %s",
                event.call,
                count,
                now - last,
                what,
            )
        if self._observers:
            self._observers.notify(event)
