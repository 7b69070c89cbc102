"""Errors that no caller sees: those of nodes that were read as misses, and those of a lock provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from shardcache.backends.locking import ProcessLock
from shardcache.core.events import LockProviderFailed, Observers
from shardcache.core.health import FailureKind, failure_kind
from shardcache.errors import NodeError, printable
from shardcache.log import log
from shardcache.operations.cluster.members import Member

LINE_EVERY: Final = 60.0  # seconds between two lines about the same node or call, and error
MAX_KINDS: Final = (
    1_000  # kinds of errors that are logged apart; further ones of a node are one kind
)
QUOTED: Final = 80  # characters of an error's text that tell it from other errors

Kind = tuple[str, str, str]


class SwallowedErrorLog:
    """Logs the first error of each node and kind, then one line a minute with their number.

    `on_error="miss"` hides a node that is down for a while. It must not hide a wrong password, a user
    without rights or a server without memory: those stay until an operator reads of them. An error that
    ejects its node at once is left out, because the ejection has its own line. Calls that are refused
    after it have one line a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._logged: dict[Kind, tuple[float, int]] = {}  # time of the last line, errors since

    def note(self, error: NodeError) -> None:
        """Count an error that was swallowed; log a line when one is due."""
        if failure_kind(error) is FailureKind.HARD:
            return
        now = self._clock()
        with self._lock.current():
            kind = self._kind(error)
            last, count = self._logged.get(kind, (None, 0))
            count += 1
            due = last is None or now - last >= LINE_EVERY
            self._logged[kind] = (now, 0) if due or last is None else (last, count)
        if last is None:
            log.warning("node error read as a miss: %s", str(error))
        elif due:
            log.warning(
                "node error read as a miss %d times in %.0f s: %s", count, now - last, str(error)
            )

    def note_refused(self, member: Member, cause: NodeError) -> None:
        """Log a line for each minute in which calls are refused, or detoured, because a node is ejected."""
        now, since = self._clock(), member.health.since
        ejected_at, last, before = member.reminded
        if ejected_at != since:
            member.reminded = (since, now, member.spared - 1)
            return
        if now - last < LINE_EVERY:
            return
        with self._lock.current():
            if member.reminded[1] != last:  # another thread was faster
                return
            spared = member.spared
            member.reminded = (since, now, spared)
        log.warning(
            "node %s still ejected: %s; %d calls %s in %.0f s",
            *node_and_reason(cause),
            spared - before,
            "detoured or refused" if member.detoured else "refused",
            now - last,
        )

    def _kind(self, error: NodeError) -> Kind:
        kind = (error.node, type(error).__name__, str(error)[:QUOTED])
        known = kind in self._logged or len(self._logged) < MAX_KINDS
        return kind if known else (error.node, "", "")


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


def node_and_reason(error: NodeError) -> tuple[str, str]:
    """Return the node of an error and what is wrong with it, both safe to log."""
    node = printable(error.node)
    return node, str(error).removeprefix(f"{node}: ")
