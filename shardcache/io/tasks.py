"""What the tasks of a client share besides flights: replies, and the repetitions of a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from shardcache.core.commands import Reply
from shardcache.operations.port import FlightEnd, Work


class SharedReplies:
    """Replies in progress, shared by all tasks that ask for the same in the meantime."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[asyncio.Future[Reply]]] = {}

    async def get(self, name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Return the reply of `ask`, or the reply to another task that already asks the same."""
        loop = asyncio.get_running_loop()
        key = (loop, name)
        while (waiting := self._waiting.get(key)) is not None:
            waiter: asyncio.Future[Reply] = loop.create_future()
            waiting.append(waiter)
            reply = await waiter
            if reply is not FlightEnd.CANCELLED:
                return reply
        self._waiting[key] = waiting = []
        reply = FlightEnd.CANCELLED  # if this task is cancelled, the next one asks
        try:
            reply = await ask()
        finally:
            del self._waiting[key]
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(reply)
        return reply


class TaskRepetition:
    """Work that a loop does periodically for one caller."""

    __slots__ = ("_every", "_loop", "_name", "_task", "_timer", "_work", "ended")

    def __init__(self, every: float, work: Work[bool], name: str) -> None:
        self._every = every
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(every, self._start_turn)

    def end(self) -> None:
        """Begin no further turn; a turn in progress goes on to its end."""
        self.ended = True
        self._timer.cancel()

    async def stop(self) -> None:
        """End it, and wait for the turn that is in progress."""
        self.end()
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    def _start_turn(self) -> None:
        self._task = self._loop.create_task(self._run_turn(), name=f"shardcache {self._name}")

    async def _run_turn(self) -> None:
        if await self._work() and not self.ended:
            self._timer = self._loop.call_later(self._every, self._start_turn)
        else:
            self.ended = True
