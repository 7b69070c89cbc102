"""What threads share: one's work for all who want it, and threads for what is done beside the calls."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import cache
from typing import Any, Final, TypeVar

from shardcache.backends.base import LAST_WAIT
from shardcache.backends.threads import NoThreadError, Workers, start_thread
from shardcache.io.single_flight import Flight, nested
from shardcache.operations.port import FlightEnd, Pause, Work, run

T = TypeVar("T")

log = logging.getLogger("shardcache")

LEAST_PAUSE: Final = 0.001  # seconds


# What a waiter waits on. Not a `threading.Event`: an exception that a signal raises inside it would
# leave it locked.
Waiter = queue.SimpleQueue[None]


class ThreadFlight(Flight):
    """Work that one thread does, and those who wait for it."""

    __slots__ = ("_waiters", "landed", "outcome")

    def __init__(self, progress: Any) -> None:  # whatever the work says of itself
        super().__init__(progress)
        self._waiters: list[Waiter] = []
        self.outcome: Any = FlightEnd.CANCELLED  # of whatever type the work has
        self.landed = False

    def land(self, outcome: Any) -> None:  # as above
        """Let everybody have what came of it."""
        self.outcome = outcome
        self.landed = True
        for waiter in self._waiters:
            waiter.put(None)

    def join(self, waiter: Waiter) -> None:
        """Have a waiter told when it has landed."""
        self._waiters.append(waiter)
        if self.landed:  # perhaps before it knew of this one
            waiter.put(None)


class ThreadSingleFlight:
    """The flights of one client's threads. In a forked child there are none."""

    __slots__ = ("_single_flight",)

    nested = staticmethod(nested)

    def __init__(self) -> None:
        self._single_flight: dict[tuple[int, bytes], ThreadFlight] = {}

    async def do(  # noqa: PLR0913 - as in the port
        self,
        name: bytes,
        work: Work[T],
        wait: float,
        *,
        takes_over: bool,
        progress: Any = None,  # as above
        joins: Callable[[Any], bool] | None = None,
    ) -> tuple[T | FlightEnd, bool]:
        """Do `work` in this thread, or wait for the thread that does."""
        key = (os.getpid(), name)
        waiter: Waiter = queue.SimpleQueue()
        joined: list[ThreadFlight] = []
        own = ThreadFlight(progress)
        outcome: T | FlightEnd = FlightEnd.CANCELLED
        try:  # from before it is known to others: a signal may raise between any two bytecodes
            with ExitStack() as waiting:
                while True:
                    flight = self._single_flight.setdefault(
                        key, own
                    )  # atomic: one thread gets its own
                    if flight is own:
                        break
                    if flight.over or (
                        flight not in joined and joins is not None and not joins(flight.progress)
                    ):
                        self._remove(key, flight)
                        continue
                    if flight not in joined:
                        joined.append(flight)
                        flight.join(waiter)
                        if waiting.enter_context(flight.waiting_on()):
                            return FlightEnd.REENTRANT, False
                    if _told(waiter, wait):
                        return next(each.outcome for each in joined if each.landed), False
                    if not takes_over:
                        return FlightEnd.TIMED_OUT, False
                    self._remove(key, flight)
            with own.running():
                outcome = await work()
            return outcome, True
        finally:
            own.over = True  # from here on nobody joins it, even if a signal raises once more
            try:
                self._remove(key, own)
            finally:
                own.land(outcome)

    def progress(self, name: bytes) -> Any:  # as above
        """Return the progress of the flight under this name, `None` if there is none."""
        flight = self._single_flight.get((os.getpid(), name))
        return None if flight is None else flight.progress

    def forget(self, name: bytes) -> None:
        """Let nobody join the flight under this name any more."""
        self._single_flight.pop((os.getpid(), name), None)

    def forget_all(self) -> None:
        """Let nobody join any flight any more."""
        self._single_flight.clear()

    def __len__(self) -> int:
        return len(self._single_flight)

    def _remove(self, key: tuple[int, bytes], flight: ThreadFlight) -> None:
        if self._single_flight.get(key) is flight:
            self._single_flight.pop(key, None)


def _told(waiter: Waiter, wait: float) -> bool:
    """Wait up to so many seconds to be told; say whether that was so."""
    try:
        waiter.get(timeout=max(0.0, wait))
    except queue.Empty:
        return False
    return True


class ThreadRepetition:
    """What the thread of repetitions does for one caller."""

    __slots__ = ("_busy", "_stopped", "_work", "due", "every")

    def __init__(self, every: float, work: Work[bool]) -> None:
        self.every = every
        self.due = time.monotonic() + every
        self._work = work
        # Reentrant: what a turn does may stop it, and so may a finalizer that runs meanwhile.
        self._busy = threading.RLock()
        self._stopped = False

    def end(self) -> None:
        """Do it no more; a turn that is under way goes on to its end."""
        self._stopped = True

    @property
    def ended(self) -> bool:
        """Return whether there is nothing more to do."""
        return self._stopped

    def turn(self) -> None:
        """Do it once more."""
        with self._busy:
            if not self._stopped and not self._done():
                self.end()
        self.due = time.monotonic() + self.every

    async def stop(self) -> None:
        """End it, and wait for the turn that is under way, unless that is what stops it."""
        self.end()
        with self._busy:
            pass

    def _done(self) -> bool:
        """Do it; what it raises ends it, and not the thread that others share."""
        try:
            return run(self._work)
        except Exception:
            log.exception("what is done again and again beside the calls has failed")
            return False


class _Keeper:
    """Stands for the thread of a repeater. Whoever starts it holds it, and then the thread itself."""

    __slots__ = ("__weakref__",)


class Repeater:
    """One daemon thread for all repetitions of a client, there while there are any."""

    __slots__ = ("__weakref__", "_keeper", "_lock", "_repetitions", "_woken")

    def __init__(self) -> None:
        self._begin()
        _repeaters.add(self)

    def add(self, every: float, work: Work[bool]) -> ThreadRepetition:
        """Do `work` every so many seconds from now on."""
        repetition = ThreadRepetition(every, work)
        try:
            self._repetitions.append(repetition)
            self._woken.put(None)
            self._keep()
        except BaseException:  # an interrupt: nobody would end what the caller has not got
            repetition.end()
            self._keep()  # others may count on the thread whose start was interrupted
            raise
        return repetition

    def close(self) -> None:
        """End all of them."""
        for repetition in list(self._repetitions):
            repetition.end()
        self._woken.put(None)

    def forget_inherited(self) -> None:
        """Start anew in a forked child: thread and repetitions are its parent's."""
        for repetition in self._repetitions:
            repetition.end()  # a greenlet that works on them is there in the child as well
        self._begin()

    def _begin(self) -> None:
        # Reentrant: the garbage collector or a signal may call the program's code while it is held,
        # and that may take a lock.
        self._lock = threading.RLock()
        self._repetitions: list[ThreadRepetition] = []
        self._keeper: weakref.ref[_Keeper] | None = None
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def _keep(self) -> None:
        """Start the thread if there is none, and something to do."""
        # A list can be emptied: the frames of an interrupted start live as long as its error.
        held: list[_Keeper] = []
        try:
            if self._reserve(held):
                start_thread(lambda: self._run(held), "shardcache keeper")
        except NoThreadError:  # nothing is prolonged
            held.clear()
        except BaseException:
            held.clear()  # the thread may be kept by others, and may even come up yet
            raise

    def _reserve(self, held: list[_Keeper]) -> bool:
        """Hold the keeper of a thread that is to be started; return whether one is."""
        with self._lock:
            if self._keeper is not None and self._keeper() is not None:
                return False
            if all(each.ended for each in self._repetitions):
                return False
            held.append(_Keeper())
            self._keeper = weakref.ref(held[0])
            return True

    def _run(self, held: list[_Keeper]) -> None:
        try:
            keeper = held.pop()
        except IndexError:
            return
        while (following := self._following(keeper)) is not None:
            try:
                self._woken.get(timeout=max(LEAST_PAUSE, following.due - time.monotonic()))
            except queue.Empty:
                following.turn()

    def _following(self, keeper: _Keeper) -> ThreadRepetition | None:
        """Return who is next; `None` when there is nobody, and the thread ends."""
        with self._lock:
            if self._keeper is None or self._keeper() is not keeper:  # another took over
                return None
            for repetition in list(self._repetitions):
                if repetition.ended:
                    self._repetitions.remove(repetition)
            if not self._repetitions:
                self._keeper = None
                return None
            return min(self._repetitions, key=lambda each: each.due)


class Cleaners:
    """A few threads that undo what callers no longer wait for, each thing by one of them at a time.

    A signal raises in the main thread alone, so that none of these is interrupted.
    """

    __slots__ = ("__weakref__", "_added", "_busy", "_closed", "_stuck", "_workers")

    def __init__(self, name: str, size: int) -> None:
        self._workers = Workers(name, size)
        self._closed = False
        # By process and name: what has been added since a thread last took it up, what one is at, and
        # of that what is stuck.
        self._added: dict[tuple[int, Hashable], object] = {}
        self._busy: dict[tuple[int, Hashable], object] = {}
        self._stuck: set[tuple[int, Hashable]] = set()

    def add(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Take turns, with the pause that each returns, until one returns `None`.

        Where no thread is to be had nothing is undone.
        """
        _watch_exit()
        _cleaners.add(self)
        key, mark = (os.getpid(), name), object()
        try:
            if self._added.setdefault(key, mark) is mark:  # atomic: one caller submits it
                self._workers.submit(lambda: self._clean(key, turn))
        except NoThreadError:
            self._added.pop(key, None)
        except BaseException:
            self._added.pop(key, None)
            raise

    @property
    def idle(self) -> bool:
        """Return whether nothing is to be undone in this process, or all of that is stuck."""
        process = os.getpid()
        undone = {*list(self._added), *list(self._busy)} - self._stuck
        return not any(key[0] == process for key in undone)

    def close(self) -> None:
        """Wait a moment until all is undone; what is not is left as it is."""
        _wait(lambda: self.idle, time.monotonic() + LAST_WAIT)
        self._closed = True
        self._workers.close()

    def _clean(self, key: tuple[int, Hashable], turn: Work[Pause | None]) -> None:
        own = object()
        # Whoever is at it looks again at the end, so that what is added meanwhile is taken up.
        while key in self._added and self._busy.setdefault(key, own) is own:
            try:
                self._added.pop(key, None)
                while not self._closed and (pause := run(turn)) is not None:
                    (self._stuck.add if pause.stuck else self._stuck.discard)(key)
                    time.sleep(pause.seconds)
            finally:
                self._stuck.discard(key)
                self._busy.pop(key, None)


_cleaners: weakref.WeakSet[Cleaners] = weakref.WeakSet()


@cache
def _watch_exit() -> None:
    atexit.register(_wait_at_exit)


def _wait_at_exit() -> None:
    """Let a program that ends, as after an interrupt, undo what it has begun."""
    cleaners = list(_cleaners)
    _wait(lambda: all(each.idle for each in cleaners), time.monotonic() + LAST_WAIT)


def _wait(done: Callable[[], bool], until: float) -> None:
    while not done() and time.monotonic() < until:
        time.sleep(LEAST_PAUSE)


_repeaters: weakref.WeakSet[Repeater] = weakref.WeakSet()


def _after_fork() -> None:
    for repeater in list(_repeaters):
        repeater.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
