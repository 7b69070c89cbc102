"""The log of errors that no caller saw, because they were read as misses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from shardcache.backends.locking import ProcessLock
from shardcache.core.health import FailureKind, failure_kind
from shardcache.errors import NodeError
from shardcache.operations.cluster.members import Member

EVERY: Final = 60.0  # seconds between two lines about the same node and error
MOST: Final = 1_000  # kinds of errors that are told apart; more are told as one
QUOTED: Final = 80  # characters of an error's text by which it is told from others

log = logging.getLogger("shardcache")

Kind = tuple[str, str, str]


class SwallowedErrors:
    """Writes a line about the first error of each node and kind, then one a minute with its count.

    `on_error="miss"` is there to hide a node that is down for a while, not a wrong password, a
    user without rights or a server without memory: those stay until somebody reads of them. An error
    that ejects its node at once is left out, because the ejection has a line of its own; calls that
    are refused after it have one a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._told: dict[Kind, tuple[float, int]] = {}  # when last, and how often since

    def note(self, error: NodeError) -> None:
        """Count an error that was swallowed; write a line when it is time for one."""
        if failure_kind(error) is FailureKind.HARD:
            return
        now = self._clock()
        with self._lock.own():
            kind = self._kind(error)
            last, count = self._told.get(kind, (None, 0))
            count += 1
            due = last is None or now - last >= EVERY
            self._told[kind] = (now, 0) if due or last is None else (last, count)
        if last is None:
            log.warning("an error was read as a miss: %s", str(error))
        elif due:
            log.warning(
                "an error was read as a miss, %d times in %.0f s: %s", count, now - last, str(error)
            )

    def note_refused(self, member: Member, cause: NodeError) -> None:
        """Write a line when a node has been ejected for another minute, by the calls refused so far."""
        now, since = self._clock(), member.health.since
        began, last, before = member.reminded
        if began != since:
            member.reminded = (since, now, member.refused - 1)
            return
        if now - last < EVERY:
            return
        with self._lock.own():
            if member.reminded[1] != last:  # another thread was faster
                return
            refused = member.refused
            member.reminded = (since, now, refused)
        log.warning(
            "a node is still ejected, %d calls refused in %.0f s: %s",
            refused - before,
            now - last,
            str(cause),
        )

    def _kind(self, error: NodeError) -> Kind:
        kind = (error.node, type(error).__name__, str(error)[:QUOTED])
        return kind if kind in self._told or len(self._told) < MOST else (error.node, "", "")
