"""The single-flight group of a client's tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self, TypeVar

from shardcache.io.alarm import Alarm
from shardcache.io.single_flight import Edge, Flight, nested
from shardcache.operations.port import FlightEnd, Work

T = TypeVar("T")

Key = tuple[asyncio.AbstractEventLoop, bytes]


class Followed(Flight):
    """A flight of a task, and the waiters of the others."""

    __slots__ = ("_alarm", "_waiters")

    def __init__(self, progress: Any, work: Flight | None = None) -> None:  # of the work's own type
        super().__init__(progress, work)
        self._waiters: set[asyncio.Future[None]] = set()
        self._alarm: Alarm | None = None

    def join(self, waiter: asyncio.Future[None]) -> None:
        """Wake `waiter` when the flight has landed."""
        self._waiters.add(waiter)
        if self.landed and not waiter.done():
            waiter.set_result(None)

    def wake_after(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wake `waiter` after `seconds` at the latest."""
        if self._alarm is None:
            self._alarm = Alarm()
        self._alarm.set(waiter, seconds)

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Do not wake `waiter` any more."""
        self._waiters.discard(waiter)

    def wake(self) -> None:
        """Wake all waiters."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._alarm is not None:
            self._alarm.turn_off()

    @property
    def followed(self) -> bool:
        """Whether any caller waits for it."""
        return bool(self._waiters)

    @property
    def landed(self) -> bool:
        """Whether it has an outcome."""
        raise NotImplementedError

    @property
    def outcome(self) -> Any:  # as above
        """The outcome of a flight that has landed."""
        raise NotImplementedError

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that does the work."""
        raise NotImplementedError

    @property
    def deserted(self) -> bool:
        """Whether its work is being cancelled, because no caller waits for it."""
        return not self.task.done() and self.task.cancelling() > 0

    def leave(self) -> None:
        """Leave the flight; the last waiter to leave cancels its work, or lets it go on for a while."""
        raise NotImplementedError


class TaskFlight(Followed):
    """A flight whose work runs in its own task, with a copy of the first caller's context.

    The work is cancelled only when the last caller that waits for it is cancelled; with `outlives`,
    as many seconds later as that returns. `orphans` has the flights that go on without a caller.
    """

    __slots__ = ("_end", "_orphans", "_outlives", "_task")

    def __init__(
        self,
        work: Work[Any],
        progress: Any,
        landed: Callable[[TaskFlight], None],
        outlives: Callable[[], float] | None,
        orphans: set[Followed],
    ) -> None:
        super().__init__(progress)
        self._outlives = outlives
        self._orphans = orphans
        self._end: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(work), name="shardcache flight")

        def on_done(_: asyncio.Task[Any]) -> None:
            landed(self)
            orphans.discard(self)
            if self._end is not None:
                self._end.cancel()
            self.wake()

        self._task.add_done_callback(on_done)

    def leave(self) -> None:
        """Leave the flight; the last waiter to leave cancels its work, or lets it go on for a while."""
        if self.followed or self._task.done():
            return
        if self._outlives is None:
            self._task.cancel()
        elif self._end is None:
            self._orphans.add(self)
            self._end = self._task.get_loop().call_later(self._outlives(), self._cancel_orphan)

    def _cancel_orphan(self) -> None:
        self._outlives = None
        self.leave()

    @property
    def landed(self) -> bool:
        """Whether it has an outcome."""
        return self._task.done()

    def result(self) -> Any:  # of whatever type the work has
        """Return the outcome, or raise the work's exception: that is for its first caller alone."""
        return self._task.result()

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that does the work."""
        return self._task

    @property
    def outcome(self) -> Any:  # as above
        """The outcome of a flight that has landed."""
        if self._task.cancelled() or self._task.exception() is not None:
            return FlightEnd.CANCELLED
        return self._task.result()

    async def _run(self, work: Work[Any]) -> Any:
        with self.running():
            return await work()


class TaskSingleFlight:
    """The single-flight group of one client's tasks, each flight on its own loop."""

    __slots__ = ("_flights", "_orphans")

    nested = staticmethod(nested)

    def __init__(self) -> None:
        self._flights: dict[Key, Followed] = {}
        self._orphans: set[Followed] = set()  # a loop holds its tasks weakly

    async def do(  # noqa: C901, PLR0912, PLR0913 - see below; as in the port
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,  # of the work's own type
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,
    ) -> tuple[T | FlightEnd, bool]:
        """Run `work` in a task, or wait for the flight under this name."""
        joined: tuple[Followed, ...] = ()
        edges: tuple[Edge, ...] = ()
        try:  # in one frame and with few objects: it waits in tens of thousands of tasks at once
            while True:
                flight = self._flights.get((asyncio.get_running_loop(), name))
                if flight is None or flight.deserted:
                    break
                if flight not in joined:
                    if joins is not None and not joins(flight.progress):
                        break  # the caller's flight takes its place
                    joined = (*joined, flight)
                    edge = flight.add_edge()
                    if edge is not None:
                        edges = (*edges, edge)
                        if edge.closes_circle:
                            return FlightEnd.REENTRANT, False
                waiter = _begin_wait(joined, wait)
                try:
                    await waiter
                finally:
                    _end_wait(joined, waiter)
                for each in joined:
                    if each.landed:
                        return each.outcome, False
                if not takes_over:
                    return FlightEnd.TIMED_OUT, False
                self._remove(name, flight)
        finally:
            for edge in edges:
                edge.remove()
            for each in joined:
                each.leave()
        own = TaskFlight(work, progress, partial(self._remove, name), outlives, self._orphans)
        self._flights[asyncio.get_running_loop(), name] = own
        try:
            await _wait_for_any([own], None)
        finally:
            own.leave()
        return own.result(), True

    def batch(self) -> TaskFlightBatch:
        """Return an empty batch of flights."""
        return TaskFlightBatch(self._flights, self._orphans)

    def progress(self, name: bytes) -> Any:  # as above
        """Return the progress of the flight under this name, `None` if there is none."""
        flight = self._flights.get((asyncio.get_running_loop(), name))
        return None if flight is None else flight.progress

    def forget(self, *names: bytes) -> None:
        """Forget the flights under these names: no caller joins them any more."""
        if self._flights:  # usually empty, and every write calls this
            for name in names:
                self._flights.pop((asyncio.get_running_loop(), name), None)

    def forget_all(self) -> None:
        """Forget all flights of this loop: no caller joins them any more."""
        loop = asyncio.get_running_loop()
        for key in [key for key in self._flights if key[0] is loop]:
            del self._flights[key]

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the flights' tasks on this loop, without the current one."""
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        tasks = {flight.task for flight in (*self._flights.values(), *self._orphans)}
        return [task for task in tasks if task.get_loop() is loop and task is not current]

    def __len__(self) -> int:
        return len(self._flights)

    def _remove(self, name: bytes, flight: Followed) -> None:
        key = (asyncio.get_running_loop(), name)
        if self._flights.get(key) is flight:
            del self._flights[key]


class BatchedFlight(Followed):
    """A flight whose work is that of a whole batch."""

    __slots__ = ("_batch", "_outcome", "key", "outlives")

    def __init__(
        self,
        progress: Any,
        batch: TaskFlightBatch,
        key: Key,
        outlives: Callable[[], float] | None,
    ) -> None:
        super().__init__(progress, batch)
        self._batch = batch
        self._outcome: tuple[Any] | None = None
        self.key = key
        self.outlives = outlives

    def land(self, outcome: Any) -> None:  # of whatever type the work has
        """Set the outcome, and wake all waiters."""
        self._outcome = (outcome,)
        self.wake()

    @property
    def landed(self) -> bool:
        """Whether it has an outcome."""
        return self._outcome is not None

    @property
    def outcome(self) -> Any:  # as above
        """The outcome of a flight that has landed."""
        return FlightEnd.CANCELLED if self._outcome is None else self._outcome[0]

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that does the work."""
        return self._batch.task

    def leave(self) -> None:
        """Leave the flight; the last waiter to leave the batch cancels its work."""
        self._batch.leave()


class TaskFlightBatch(Flight):
    """The flights that one caller leads by one task, and those of other callers that it follows.

    The task is cancelled only when the caller is, and no other waits for any of its flights.
    """

    __slots__ = (
        "_end",
        "_entered",
        "_flights",
        "_followed",
        "_following",
        "_is_overdue",
        "_orphans",
        "_own",
        "_present",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(self, flights: dict[Key, Followed], orphans: set[Followed]) -> None:
        super().__init__()
        self._flights = flights
        self._orphans = orphans
        self._entered: list[BatchedFlight] = []  # before the task has begun
        self._own: list[BatchedFlight] = []
        self._followed: list[Followed] = []
        self._following = ExitStack()
        self._present = False  # whether the caller itself waits
        self._is_overdue = False  # whether it has gone on without a caller for long enough
        self._end: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._following.close()
        for flight in self._entered:
            self._land(flight, FlightEnd.CANCELLED)

    def enter(
        self,
        name: bytes,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,
    ) -> tuple[Followed | FlightEnd, bool]:
        """Lead the flight under this name, or follow it."""
        loop = asyncio.get_running_loop()
        key = (loop, name)
        flight = self._flights.get(key)
        known = flight in self._followed
        if (
            flight is None
            or flight.deserted
            or not (known or joins is None or joins(flight.progress))
        ):
            own = BatchedFlight(progress, self, key, outlives)
            self._flights[key] = own
            self._entered.append(own)
            return own, True
        if not known:
            self._followed.append(flight)
            self._following.callback(flight.leave)
            if self._following.enter_context(flight.waiting_on()):
                return FlightEnd.REENTRANT, False
            stays: asyncio.Future[None] = loop.create_future()  # so that others leave it to us
            flight.join(stays)
            self._following.callback(flight.forget, stays)
        return flight, False

    async def lead(self, work: Work[None]) -> None:
        """Run the work in a task."""
        self.over = False
        self._own += self._entered
        self._entered.clear()
        self.task = task = asyncio.get_running_loop().create_task(
            self._run(work), name="shardcache flights"
        )
        task.add_done_callback(self._on_done)
        self._present = True
        try:
            await asyncio.wait([task])
        finally:
            self._present = False
            self.leave()
        task.result()

    def land(self, flight: BatchedFlight, outcome: Any) -> None:
        """Set the outcome of an own flight, for its followers."""
        self._land(flight, outcome)
        self.leave()

    def forget(self, name: bytes, flight: Followed) -> None:
        """Replace a flight that is late by another."""
        key = (asyncio.get_running_loop(), name)
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def wait(self, seconds: float) -> None:
        """Wait until another followed flight lands."""
        await _wait_for_any([each for each in self._followed if not each.landed], seconds)

    def leave(self) -> None:
        """Cancel the work if no caller is left that waits for it, or let it go on for a while."""
        flying = [flight for flight in self._own if not flight.landed]
        if self._present or not flying or any(flight.followed for flight in flying):
            return
        outlives = [each.outlives for each in flying if each.outlives is not None]
        if self._is_overdue or not outlives:
            self.task.cancel()
        elif self._end is None:
            self._orphans.update(flying)
            longest = max(each() for each in outlives)
            self._end = self.task.get_loop().call_later(longest, self._cancel_orphans)

    def _cancel_orphans(self) -> None:
        self._is_overdue = True
        self.leave()

    def _on_done(self, _: asyncio.Task[None]) -> None:
        if self._end is not None:
            self._end.cancel()
        for flight in self._own:
            self._orphans.discard(flight)
            if not flight.landed:
                self._land(flight, FlightEnd.CANCELLED)

    def _land(self, flight: BatchedFlight, outcome: Any) -> None:  # as above
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.land(outcome)

    async def _run(self, work: Work[None]) -> None:
        with self.running():
            await work()


async def _wait_for_any(flights: Sequence[Followed], wait: float | None) -> None:
    """Wait up to `wait` seconds until one of the flights has landed."""
    waiter = _begin_wait(flights, wait)
    try:
        await waiter
    finally:
        _end_wait(flights, waiter)


def _begin_wait(flights: Sequence[Followed], wait: float | None) -> asyncio.Future[None]:
    """Return a future that is done when one of the flights has landed, or after `wait` seconds.

    A loop that stood still kept the flights from landing as well: the time that it was late is
    added, up to twice `wait` in all.
    """
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for flight in flights:
        flight.join(waiter)
    if wait is not None and not waiter.done():
        if wait > 0.0:
            wake_after = flights[-1].wake_after if flights else Alarm().set
            wake_after(waiter, wait)
        else:
            waiter.set_result(None)
    return waiter


def _end_wait(flights: Sequence[Followed], waiter: asyncio.Future[None]) -> None:
    for flight in flights:
        flight.forget(waiter)
