"""The single-flight group of a client's threads."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self, TypeVar

from shardcache.io.single_flight import Flight, nested
from shardcache.operations.port import FlightEnd, Work

T = TypeVar("T")

# Not a `threading.Event`: an exception that a signal raises inside it would leave it locked.
Waiter = queue.SimpleQueue[None]


class ThreadFlight(Flight):
    """A flight whose work one thread does, and the waiters of the others."""

    __slots__ = ("_waiters", "landed", "outcome")

    def __init__(self, progress: Any, work: Flight | None = None) -> None:  # of the work's own type
        super().__init__(progress, work)
        self._waiters: list[Waiter] = []
        self.outcome: Any = FlightEnd.CANCELLED  # of whatever type the work has
        self.landed = False

    def land(self, outcome: Any) -> None:  # as above
        """Set the outcome, and wake all waiters."""
        self.outcome = outcome
        self.landed = True
        for waiter in self._waiters:
            waiter.put(None)

    def join(self, waiter: Waiter) -> None:
        """Wake `waiter` when the flight has landed."""
        self._waiters.append(waiter)
        if self.landed:  # perhaps before the waiter was in the list
            waiter.put(None)


class ThreadSingleFlight:
    """The single-flight group of one client's threads; empty in a forked child."""

    __slots__ = ("_flights",)

    nested = staticmethod(nested)

    def __init__(self) -> None:
        self._flights: dict[tuple[int, bytes], ThreadFlight] = {}

    async def do(  # noqa: PLR0913 - as in the port
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,  # as above
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,  # noqa: ARG002 - threads are not cancelled
    ) -> tuple[T | FlightEnd, bool]:
        """Run `work` in this thread, or wait for the flight under this name."""
        key = (os.getpid(), name)
        waiter: Waiter = queue.SimpleQueue()
        joined: list[ThreadFlight] = []
        own = ThreadFlight(progress)
        outcome: T | FlightEnd = FlightEnd.CANCELLED
        try:  # before others know the flight: a signal may raise between any two bytecodes
            with ExitStack() as waiting:
                while True:
                    # Atomic: exactly one thread gets its own flight back.
                    flight = self._flights.setdefault(key, own)
                    if flight is own:
                        break
                    if flight.over or (
                        flight not in joined and joins is not None and not joins(flight.progress)
                    ):
                        self.remove(key, flight)
                        continue
                    if flight not in joined:
                        joined.append(flight)
                        flight.join(waiter)
                        if waiting.enter_context(flight.waiting_on()):
                            return FlightEnd.REENTRANT, False
                    if _wait_for(waiter, wait):
                        return next(each.outcome for each in joined if each.landed), False
                    if not takes_over:
                        return FlightEnd.TIMED_OUT, False
                    self.remove(key, flight)
            with own.running():
                outcome = await work()
            return outcome, True
        finally:
            own.over = True  # no caller joins it from here on, even if a signal raises once more
            try:
                self.remove(key, own)
            finally:
                own.land(outcome)

    def batch(self) -> ThreadFlightBatch:
        """Return an empty batch of flights."""
        return ThreadFlightBatch(self)

    def progress(self, name: bytes) -> Any:  # as above
        """Return the progress of the flight under this name, `None` if there is none."""
        flight = self._flights.get((os.getpid(), name))
        return None if flight is None else flight.progress

    def forget(self, *names: bytes) -> None:
        """Forget the flights under these names: no caller joins them any more."""
        if self._flights:  # usually empty, and every write calls this
            for name in names:
                self._flights.pop((os.getpid(), name), None)

    def forget_all(self) -> None:
        """Forget all flights: no caller joins them any more."""
        self._flights.clear()

    def __len__(self) -> int:
        return len(self._flights)

    def claim(self, key: tuple[int, bytes], flight: ThreadFlight) -> ThreadFlight:
        """Return the flight under this name: `flight` itself, for exactly one thread, if there was none."""
        return self._flights.setdefault(key, flight)

    def remove(self, key: tuple[int, bytes], flight: ThreadFlight) -> None:
        """Remove a flight unless another has taken its place."""
        if self._flights.get(key) is flight:
            self._flights.pop(key, None)


class ThreadFlightBatch(Flight):
    """The flights that one thread leads together, and those of other threads that it follows."""

    __slots__ = ("_followed", "_following", "_group", "_own", "_waiter")

    def __init__(self, group: ThreadSingleFlight) -> None:
        super().__init__()
        self._group = group
        self._own: dict[ThreadFlight, tuple[int, bytes]] = {}
        self._followed: set[ThreadFlight] = set()
        self._following = ExitStack()
        self._waiter: Waiter = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._following.close()
        finally:
            for flight in self._own:
                if not flight.landed:
                    self.land(flight, FlightEnd.CANCELLED)

    def enter(
        self,
        name: bytes,
        progress: Any = None,
        joins: Callable[[Any], bool] | None = None,
        outlives: Callable[[], float] | None = None,  # noqa: ARG002 - threads are not cancelled
    ) -> tuple[ThreadFlight | FlightEnd, bool]:
        """Lead the flight under this name, or follow it."""
        key = (os.getpid(), name)
        own = ThreadFlight(progress, self)
        self._own[own] = key  # before others know it: a signal may raise between any two bytecodes
        while (flight := self._group.claim(key, own)) is not own:
            known = flight in self._followed
            if flight.over or (not known and joins is not None and not joins(flight.progress)):
                self._group.remove(key, flight)
                continue
            del self._own[own]
            if known:
                return flight, False
            self._followed.add(flight)
            if self._following.enter_context(flight.waiting_on()):
                return FlightEnd.REENTRANT, False
            flight.join(self._waiter)
            return flight, False
        return own, True

    async def lead(self, work: Work[None]) -> None:
        """Run the work in this thread."""
        self.over = False
        with self.running():
            await work()

    def land(self, flight: ThreadFlight, outcome: Any) -> None:
        """Set the outcome of an own flight, for its followers."""
        flight.over = True  # no caller joins it from here on
        self._group.remove(self._own[flight], flight)
        flight.land(outcome)

    def forget(self, name: bytes, flight: ThreadFlight) -> None:
        """Replace a flight that is late by another."""
        self._group.remove((os.getpid(), name), flight)

    async def wait(self, seconds: float) -> None:
        """Block the thread until another followed flight lands."""
        _wait_for(self._waiter, seconds)


def _wait_for(waiter: Waiter, wait: float) -> bool:
    """Wait up to `wait` seconds; return whether a flight landed."""
    try:
        waiter.get(timeout=max(0.0, wait))
    except queue.Empty:
        return False
    return True
