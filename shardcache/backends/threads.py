"""Threads for what can only block: few, started as they are needed, gone when they are not."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from shardcache.backends.live_objects import LiveObjects

LINGER: Final = 5.0  # seconds that a thread without work waits for more

Work = Callable[[], None]

log = logging.getLogger("shardcache")


class NoThreadError(OSError):
    """No thread is to be had: this process has too many, or its interpreter ends.

    Its number is `ENOMEM`, so that as a cause it blames this process and not a node.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(errno.ENOMEM, f"no thread is to be had: {reason}")


def refuse_at_exit() -> None:
    """Raise `NoThreadError` while the interpreter ends.

    Threads that are there do no more then, and of a new one Python 3.11 would wait for ever to hear.
    """
    if sys.is_finalizing():
        raise NoThreadError("the interpreter ends")


def start_thread(work: Work, name: str) -> None:
    """Have `work` done by a daemon thread of its own; raise `NoThreadError` when there is none."""
    refuse_at_exit()
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError(error) from error
    except KeyError as error:
        # `start` was interrupted just when the thread had begun, and found it gone from its own list
        # of threads that have not. What interrupted it is the caller's to see.
        if error.__context__ is None:
            raise
        raise error.__context__ from None


class Workers:
    """At most `size` daemon threads. Not those of `concurrent.futures`: they hold up the exit.

    Work beyond that waits its turn. It should raise nothing, and end by itself. The threads end
    with these workers: when they are closed, or dropped.
    """

    def __init__(self, name: str, size: int) -> None:
        self._pool = pool = _ThreadPool(name, size)
        weakref.finalize(self, pool.close).atexit = False
        _workers.add(self)

    def submit(self, work: Work) -> None:
        """Have `work` done by a thread that is idle, or a new one.

        Raise `NoThreadError` when there is none. Whatever this raises, `work` is not done later:
        it was taken back, unless a thread had begun it.
        """
        self._pool.submit(work, self._pool.add)

    def try_submit(self, work: Work) -> bool:
        """Do the same unless all threads have work; return whether it was so."""
        return self._pool.submit(work, self._pool.add_if_idle)

    @property
    def running(self) -> int:
        """Return how many threads there are."""
        return len(self._pool.slots())

    @property
    def failures(self) -> int:
        """Return how many pieces of work have raised an exception."""
        return self._pool.failures

    @property
    def _idle(self) -> int:
        return sum(slot.idle for slot in self._pool.slots())

    def close(self) -> None:
        """End idle threads now, and busy ones after their work. Work submitted later is still done."""
        self._pool.close()

    def reset_after_fork(self) -> None:
        """Start anew in a forked child, which has none of its parent's threads."""
        self._pool.reset()


class _Slot:
    """Stands for a thread. Whoever starts one holds it, and then the thread itself."""

    __slots__ = ("__weakref__", "idle")

    def __init__(self) -> None:
        self.idle = True


class _ThreadPool:
    """The threads and the work that waits for them; knows nobody who is to be dropped.

    Threads are counted by the slots that are alive: so one that never came up, because its start
    was interrupted, is not waited for.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._closed = False
        self.failures = 0
        self.reset()

    def reset(self) -> None:
        """Have no thread and no work."""
        # Reentrant: the garbage collector or a signal may call the program's code while it is held,
        # and that may submit work. So each step leaves what the next one needs in order.
        self._lock = threading.RLock()
        self._pending: deque[Work] = deque()
        self._slots: LiveObjects[_Slot] = LiveObjects()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def slots(self) -> list[_Slot]:
        """Return the slots of the threads there are."""
        return list(self._slots)

    def submit(self, work: Work, add: Callable[[Work], bool]) -> bool:
        """Have `work` done if it can be added; return whether that was so."""
        refuse_at_exit()
        try:
            if not add(work):
                return False
            self._wakes.put(None)
            self._start_if_due()
        except NoThreadError:
            # Threads that are there already do it in their turn.
            if not self.slots() and self._take_back(work):
                raise
        except BaseException:
            self._take_back(work)
            with contextlib.suppress(NoThreadError):
                self._start_if_due()  # others may count on the thread whose start was interrupted
            raise
        return True

    def add(self, work: Work) -> bool:
        """Have work wait for a thread."""
        self._pending.append(work)
        return True

    def add_if_idle(self, work: Work) -> bool:
        """Have it wait if a thread will take it at once; return whether that was so."""
        with self._lock:
            pending, _, busy = self._load()
            return pending + busy < self._size and self.add(work)

    def close(self) -> None:
        """End each thread as soon as it has no work."""
        # Without the lock: the garbage collector may call this where it is held.
        self._closed = True
        for _ in range(self._size):
            self._wakes.put(None)

    def _start_if_due(self) -> None:
        """Start a thread if one is due."""
        # A list can be emptied: the frames of an interrupted start live as long as its error.
        held: list[_Slot] = []
        try:
            if self._reserve(held):
                start_thread(lambda: self._run(held), self._name)
        except BaseException:
            held.clear()  # the thread may be kept by others, and may even come up yet
            raise

    def _reserve(self, held: list[_Slot]) -> bool:
        """Hold the slot of a thread that is to be started; return whether one is."""
        with self._lock:
            pending, idle, _ = self._load()
            if pending <= idle:
                return False
            held.append(_Slot())
            return self._add(held[0])

    def _load(self) -> tuple[int, int, int]:
        """Return how much work waits, how many threads are idle, and how many busy."""
        while True:
            pending = len(self._pending)
            states = [slot.idle for slot in self._slots]
            if len(self._pending) == pending:  # else a thread has taken some meanwhile
                return pending, states.count(True), states.count(False)

    def _add(self, slot: _Slot) -> bool:
        """Count a slot if there is room for one more; return whether there was."""
        with self._lock:
            self._slots.remove_dead()
            try:
                self._slots.add(slot)
                if self._slots.count() <= self._size:
                    return True
            except BaseException:
                self._slots.discard(slot)
                raise
            self._slots.discard(slot)
            return False

    def _take_back(self, work: Work) -> bool:
        """Take back work that no thread has begun; return whether it was there."""
        try:
            self._pending.remove(work)
        except ValueError:
            return False
        return True

    def _run(self, held: list[_Slot]) -> None:
        slot = self._take_slot(held)
        while slot is not None:
            may_exit = self._wait_for_work()
            while (work := self._take_work(slot)) is not None:
                self._run_work(work)
                slot.idle = True
            if may_exit and self._exit_unless_needed(slot):
                slot = None

    def _take_slot(self, held: list[_Slot]) -> _Slot | None:
        """Take the slot that was kept for this thread, or another if there is room."""
        try:
            return held.pop()
        except IndexError:
            slot = _Slot()
            return slot if self._add(slot) else None

    def _wait_for_work(self) -> bool:
        """Wait for work; return whether the thread may go if there is none."""
        try:
            self._wakes.get(timeout=0.0 if self._closed else LINGER)
        except queue.Empty:
            return True
        return self._closed

    def _take_work(self, slot: _Slot) -> Work | None:
        # Without the lock: whoever holds it may wait for this work. Not idle from before it takes
        # some, so that no other work is left to it.
        slot.idle = False
        try:
            return self._pending.popleft()
        except IndexError:
            slot.idle = True
            return None

    def _run_work(self, work: Work) -> None:
        try:
            work()
        except BaseException:  # which would end a thread that others count on
            self.failures += 1
            log.exception("a background task has failed")

    def _exit_unless_needed(self, slot: _Slot) -> bool:
        """Return the slot up unless there is work; return whether it was given up."""
        # First given up, then looked: what is submitted in between gets a thread of its own.
        self._slots.discard(slot)
        return not (self._pending and self._add(slot))


_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


def _after_fork() -> None:
    for workers in list(_workers):
        workers.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
