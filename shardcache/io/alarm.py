"""One timer of an event loop for many waiters."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import TypeAlias

from shardcache.backends.transport.channel import OWN_DELAY

# The time, a number that keeps equal times in order, the waiter, and how much longer it may wait.
_Due: TypeAlias = tuple[float, int, "asyncio.Future[None]", float]


class Alarm:
    """Wakes each of many waiters when its time is over, by one timer for the one that is due first.

    A timer for each costs 2 µs and three objects that the collector looks at. Waiters that are done
    stay in the list until they are due, or until the alarm is off.
    """

    __slots__ = ("_due", "_loop", "_set", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: list[_Due] = []
        self._set = 0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wake `waiter` after `seconds`.

        If the loop is late, it stood still, and what the waiter waits for had no chance: the time that it
        was late is added, up to `seconds` more.
        """
        self._set += 1
        due = self._loop.time() + seconds
        heappush(self._due, (due, self._set, waiter, seconds))
        if self._timer is None or due < self._timer.when():
            self._start(due)

    def turn_off(self) -> None:
        """Wake no waiter any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        """Wake the waiters that are due, and start the timer for the next one."""
        self._timer = None
        now = self._loop.time()
        while self._due and (self._due[0][0] <= now or self._due[0][2].done()):
            due, number, waiter, spare = heappop(self._due)
            more = min(now - due, spare) if now - due > OWN_DELAY else 0.0
            if waiter.done():
                continue
            if more > 0.0:
                heappush(self._due, (now + more, number, waiter, spare - more))
            else:
                waiter.set_result(None)
        if self._due:
            self._start(self._due[0][0])
