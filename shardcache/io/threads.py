"""What the threads of a client share besides flights: periodic work and clean-up in the background."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import cache
from typing import Final, TypeVar

from shardcache.backends.base import LAST_WAIT
from shardcache.backends.threads import NoThreadError, Workers, start_thread
from shardcache.log import log
from shardcache.operations.port import Pause, Work, run

T = TypeVar("T")

LEAST_PAUSE: Final = 0.001  # seconds


class ThreadRepetition:
    """Work that the repeater's thread does periodically for one caller."""

    __slots__ = ("_busy", "_stopped", "_work", "due", "every")

    def __init__(self, every: float, work: Work[bool]) -> None:
        self.every = every
        self.due = time.monotonic() + every
        self._work = work
        # Reentrant: a turn may stop its own repetition, and so may a finalizer that runs meanwhile.
        self._busy = threading.RLock()
        self._stopped = False

    def end(self) -> None:
        """Begin no further turn; a turn in progress goes on to its end."""
        self._stopped = True

    @property
    def ended(self) -> bool:
        """Whether no further turn begins."""
        return self._stopped

    def turn(self) -> None:
        """Run the work once, unless the repetition has ended."""
        with self._busy:
            if not self._stopped and not self._run_work():
                self.end()
        self.due = time.monotonic() + self.every

    async def stop(self) -> None:
        """End it, and wait for the turn in progress, unless the caller is that turn."""
        self.end()
        with self._busy:
            pass

    def _run_work(self) -> bool:
        """Run the work; an exception ends this repetition, not the thread that all share."""
        try:
            return run(self._work)
        except Exception:
            log.exception("periodic background task failed")
            return False


class _Keeper:
    """A token for the thread of a repeater: referenced by its starter, then by the thread itself."""

    __slots__ = ("__weakref__",)


class Repeater:
    """One daemon thread for all repetitions of a client. It runs while there are any."""

    __slots__ = ("__weakref__", "_keeper", "_lock", "_repetitions", "_wakeups")

    def __init__(self) -> None:
        self._reset()
        _repeaters.add(self)

    def add(self, every: float, work: Work[bool]) -> ThreadRepetition:
        """Run `work` every `every` seconds from now on."""
        repetition = ThreadRepetition(every, work)
        try:
            self._repetitions.append(repetition)
            self._wakeups.put(None)
            self._ensure_thread()
        except BaseException:  # an interrupt: the caller has no repetition that it could end
            repetition.end()
            self._ensure_thread()  # other repetitions may need the thread whose start was interrupted
            raise
        return repetition

    def close(self) -> None:
        """End all repetitions."""
        for repetition in list(self._repetitions):
            repetition.end()
        self._wakeups.put(None)

    def forget_inherited(self) -> None:
        """Reset in a forked child: thread and repetitions are the parent's."""
        for repetition in self._repetitions:
            repetition.end()  # a greenlet that works on them exists in the child as well
        self._reset()

    def _reset(self) -> None:
        # Reentrant: while it is held the garbage collector or a signal may call the program's code,
        # which may take a lock.
        self._lock = threading.RLock()
        self._repetitions: list[ThreadRepetition] = []
        self._keeper: weakref.ref[_Keeper] | None = None
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()

    def _ensure_thread(self) -> None:
        """Start the thread if there is none, and a repetition to run."""
        # A list can be emptied: the frames of an interrupted start live as long as its error.
        keepers: list[_Keeper] = []
        try:
            if self._reserve(keepers):
                start_thread(lambda: self._run(keepers), "shardcache keeper")
        except NoThreadError:  # no lock is renewed
            keepers.clear()
        except BaseException:
            keepers.clear()  # the thread may still come up, and may serve others
            raise

    def _reserve(self, keepers: list[_Keeper]) -> bool:
        """Create the keeper of a thread that is to be started; return whether one is."""
        with self._lock:
            if self._keeper is not None and self._keeper() is not None:
                return False
            if all(each.ended for each in self._repetitions):
                return False
            keepers.append(_Keeper())
            self._keeper = weakref.ref(keepers[0])
            return True

    def _run(self, keepers: list[_Keeper]) -> None:
        try:
            keeper = keepers.pop()
        except IndexError:
            return
        while (following := self._next_due(keeper)) is not None:
            try:
                self._wakeups.get(timeout=max(LEAST_PAUSE, following.due - time.monotonic()))
            except queue.Empty:
                following.turn()

    def _next_due(self, keeper: _Keeper) -> ThreadRepetition | None:
        """Return the repetition that is due next; `None` when the thread is to end."""
        with self._lock:
            if self._keeper is None or self._keeper() is not keeper:  # another thread took over
                return None
            for repetition in list(self._repetitions):
                if repetition.ended:
                    self._repetitions.remove(repetition)
            if not self._repetitions:
                self._keeper = None
                return None
            return min(self._repetitions, key=lambda each: each.due)


class Cleaners:
    """A few clean-up threads; at most one of them works under each name.

    A signal raises in the main thread alone, so none of these is interrupted.
    """

    __slots__ = ("__weakref__", "_added", "_busy", "_closed", "_stuck", "_workers")

    def __init__(self, name: str, size: int) -> None:
        self._workers = Workers(name, size)
        self._closed = False
        # By process and name: clean-ups that no thread has taken up yet, those that a thread works
        # on, and those of them that are stuck.
        self._added: dict[tuple[int, Hashable], object] = {}
        self._busy: dict[tuple[int, Hashable], object] = {}
        self._stuck: set[tuple[int, Hashable]] = set()

    def add(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Call `turn` again after each pause that it returns, until it returns `None`.

        If no thread can be started, nothing is cleaned up.
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
        """Whether this process has no clean-up left but stuck ones."""
        process = os.getpid()
        left = {*list(self._added), *list(self._busy)} - self._stuck
        return not any(key[0] == process for key in left)

    def close(self) -> None:
        """Wait a moment for the clean-ups to end; abandon the others."""
        _wait_until(lambda: self.idle, time.monotonic() + LAST_WAIT)
        self._closed = True
        self._workers.close()

    def _clean(self, key: tuple[int, Hashable], turn: Work[Pause | None]) -> None:
        own = object()
        # The thread at work looks again at the end, so that a clean-up added meanwhile is taken up.
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
    """Wait a moment for clean-ups before the program ends, as after an interrupt."""
    cleaners = list(_cleaners)
    _wait_until(lambda: all(each.idle for each in cleaners), time.monotonic() + LAST_WAIT)


def _wait_until(done: Callable[[], bool], until: float) -> None:
    while not done() and time.monotonic() < until:
        time.sleep(LEAST_PAUSE)


_repeaters: weakref.WeakSet[Repeater] = weakref.WeakSet()


def _after_fork() -> None:
    for repeater in list(_repeaters):
        repeater.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
