"""What tasks share: one's work or reply for all who want it, and what a loop does again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from shardcache.backends.transport.channel import OWN_DELAY
from shardcache.core.commands import Reply
from shardcache.io.single_flight import Flight, nested
from shardcache.operations.port import FlightEnd, Work

T = TypeVar("T")

Key = tuple[asyncio.AbstractEventLoop, bytes]


class TaskFlight(Flight):
    """Work in a task of its own, with a copy of the context of whoever began it.

    Nobody's cancellation stops it but that of the last who waits.
    """

    __slots__ = ("_task", "_waiters")

    def __init__(
        self, work: Work[Any], progress: Any, landed: Callable[[TaskFlight], None]
    ) -> None:
        super().__init__(progress)
        self._waiters: set[asyncio.Future[None]] = set()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(work), name="shardcache flight")

        def done(_: asyncio.Task[Any]) -> None:
            landed(self)
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

        self._task.add_done_callback(done)

    def join(self, waiter: asyncio.Future[None]) -> None:
        """Have a waiter told when it has landed."""
        self._waiters.add(waiter)
        if self._task.done() and not waiter.done():
            waiter.set_result(None)

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Tell a waiter no more."""
        self._waiters.discard(waiter)

    def leave(self) -> None:
        """Take note that a caller is gone: if nobody waits any more, the work is cancelled."""
        if not self._waiters:
            self._task.cancel()

    @property
    def landed(self) -> bool:
        """Say whether it has an outcome."""
        return self._task.done()

    def result(self) -> Any:  # of whatever type the work has
        """Give what came of it, or raise what stopped it: that is its first caller's to see."""
        return self._task.result()

    @property
    def task(self) -> asyncio.Task[Any]:
        """Give the task that works."""
        return self._task

    @property
    def outcome(self) -> Any:  # as above
        """Give what came of it, once it has landed."""
        if self._task.cancelled() or self._task.exception() is not None:
            return FlightEnd.CANCELLED
        return self._task.result()

    @property
    def deserted(self) -> bool:
        """Say whether it is being stopped, because nobody waits for it."""
        return not self._task.done() and self._task.cancelling() > 0

    async def _run(self, work: Work[Any]) -> Any:
        with self.running():
            return await work()


class TaskSingleFlight:
    """The flights of one client's tasks, each on its loop."""

    __slots__ = ("_single_flight",)

    nested = staticmethod(nested)

    def __init__(self) -> None:
        self._single_flight: dict[Key, TaskFlight] = {}

    async def do(  # noqa: PLR0913 - as in the port
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,  # whatever the work says of itself
        joins: Callable[[Any], bool] | None = None,
    ) -> tuple[T | FlightEnd, bool]:
        """Do `work` in a task, or wait for the task that does."""
        key = (asyncio.get_running_loop(), name)
        joined: list[TaskFlight] = []
        with ExitStack() as waiting:
            while True:
                flight = self._single_flight.get(key)
                if flight is None or flight.deserted:
                    break
                if flight not in joined:
                    if joins is not None and not joins(flight.progress):
                        break  # the caller's own takes its place
                    joined.append(flight)
                    waiting.callback(flight.leave)
                    if waiting.enter_context(flight.waiting_on()):
                        return FlightEnd.REENTRANT, False
                if await _landed(joined, wait):
                    return next(each.outcome for each in joined if each.landed), False
                if not takes_over:
                    return FlightEnd.TIMED_OUT, False
                self._remove(key, flight)
        own = TaskFlight(work, progress, lambda flight: self._remove(key, flight))
        self._single_flight[key] = own
        try:
            await _landed([own], None)
        finally:
            own.leave()
        return own.result(), True

    def progress(self, name: bytes) -> Any:  # as above
        """Return the progress of the flight under this name, `None` if there is none."""
        flight = self._single_flight.get((asyncio.get_running_loop(), name))
        return None if flight is None else flight.progress

    def forget(self, name: bytes) -> None:
        """Let nobody join the flight under this name any more."""
        self._single_flight.pop((asyncio.get_running_loop(), name), None)

    def forget_all(self) -> None:
        """Let nobody join any flight of this loop any more."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._single_flight if key[0] is loop]:
            del self._single_flight[key]

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Give the tasks that work on this loop, but for the current one."""
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        tasks = [flight.task for key, flight in self._single_flight.items() if key[0] is loop]
        return [task for task in tasks if task is not current]

    def __len__(self) -> int:
        return len(self._single_flight)

    def _remove(self, key: Key, flight: TaskFlight) -> None:
        if self._single_flight.get(key) is flight:
            del self._single_flight[key]


async def _landed(flights: Sequence[TaskFlight], wait: float | None) -> bool:
    """Wait up to so many seconds until one of the flights has landed; return whether one has.

    A loop that stood still meanwhile kept the flights from landing as well: they get the time that
    it was late, up to twice the wait in all.
    """
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for flight in flights:
        flight.join(waiter)
    try:
        left, spare = wait, wait
        while left is None or left > 0.0:
            late = await _waited(waiter, left)
            if waiter.done() or spare is None:
                break
            left = min(late, spare) if late > OWN_DELAY else 0.0
            spare -= left
    finally:
        for flight in flights:
            flight.forget(waiter)
    return any(flight.landed for flight in flights)


async def _waited(waiter: asyncio.Future[None], seconds: float | None) -> float:
    """Wait up to so many seconds; return by how many more it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait([waiter], timeout=seconds)
    return loop.time() - began - (seconds or 0.0)


class SharedReplies:
    """Replies that are awaited now, for all tasks that ask for the same in the meantime."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[asyncio.Future[Reply]]] = {}

    async def get(self, name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """Give the reply of `ask`, or that of the task that asked the same just before."""
        loop = asyncio.get_running_loop()
        key = (loop, name)
        while (waiting := self._waiting.get(key)) is not None:
            waiter: asyncio.Future[Reply] = loop.create_future()
            waiting.append(waiter)
            reply = await waiter
            if reply is not FlightEnd.CANCELLED:
                return reply
        self._waiting[key] = waiting = []
        reply = FlightEnd.CANCELLED  # of a task that was cancelled: the next one asks anew
        try:
            reply = await ask()
        finally:
            del self._waiting[key]
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(reply)
        return reply


class TaskRepetition:
    """What a loop does for one caller every so many seconds."""

    __slots__ = ("_every", "_loop", "_name", "_task", "_timer", "_work", "ended")

    def __init__(self, every: float, work: Work[bool], name: str) -> None:
        self._every = every
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(every, self._turn)

    def end(self) -> None:
        """Do it no more; a turn that is under way goes on to its end."""
        self.ended = True
        self._timer.cancel()

    async def stop(self) -> None:
        """End it, and wait for the turn that is under way."""
        self.end()
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    def _turn(self) -> None:
        self._task = self._loop.create_task(self._round(), name=f"shardcache {self._name}")

    async def _round(self) -> None:
        if await self._work() and not self.ended:
            self._timer = self._loop.call_later(self._every, self._turn)
        else:
            self.ended = True
