"""A few daemon threads for blocking work, started on demand and ended when idle."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from shardcache.backends.live_objects import LiveObjects
from shardcache.log import log

LINGER: Final = 5.0  # seconds for which an idle thread waits for work

Work = Callable[[], None]


class NoThreadError(OSError):
    """A thread cannot be started: the process has too many, or the interpreter is exiting.

    Its `errno` is `ENOMEM`, so that as a cause it blames this process and not a node.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(errno.ENOMEM, f"cannot start a thread: {reason}")


def refuse_at_exit() -> None:
    """Raise `NoThreadError` while the interpreter exits.

    Existing threads do no more work then, and Python 3.11 would wait for ever for a new one to start.
    """
    if sys.is_finalizing():
        raise NoThreadError("the interpreter is exiting")


def start_thread(work: Work, name: str) -> None:
    """Run `work` in a new daemon thread; raise `NoThreadError` if none can be started."""
    refuse_at_exit()
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError(error) from error
    except KeyError as error:
        # An interrupt hit `start` just after the thread had begun, and `threading` no longer found
        # it in its list of starting threads. The caller has to see the interrupt itself.
        if error.__context__ is None:
            raise
        raise error.__context__ from None


class Workers:
    """At most `size` daemon threads. Threads of `concurrent.futures` would hold up the exit.

    Further work waits in a queue. Work should raise nothing and end by itself. The threads end when
    the workers are closed or dropped.
    """

    def __init__(self, name: str, size: int) -> None:
        self._pool = pool = _ThreadPool(name, size)
        weakref.finalize(self, pool.close).atexit = False
        _workers.add(self)

    def submit(self, work: Work) -> None:
        """Run `work` in an idle thread or a new one.

        Raise `NoThreadError` if there is none. If this raises anything, `work` is taken back and not
        run later, unless a thread has already begun it.
        """
        self._pool.submit(work, self._pool.add)

    def try_submit(self, work: Work) -> bool:
        """Run `work` unless all threads are busy; return whether it was accepted."""
        return self._pool.submit(work, self._pool.add_if_idle)

    @property
    def running(self) -> int:
        """Return how many threads are alive."""
        return len(self._pool.slots())

    @property
    def failures(self) -> int:
        """Return how many pieces of work have raised an exception."""
        return self._pool.failures

    @property
    def _idle(self) -> int:
        return sum(slot.idle for slot in self._pool.slots())

    def close(self) -> None:
        """End idle threads now, and busy ones after their work. Work submitted later still runs."""
        self._pool.close()

    def reset_after_fork(self) -> None:
        """Start without threads in a forked child: it has none of its parent's."""
        self._pool.reset()


class _Slot:
    """A place for one thread, referenced first by the starter and then by the thread itself."""

    __slots__ = ("__weakref__", "idle")

    def __init__(self) -> None:
        self.idle = True


class _ThreadPool:
    """The threads and their queue of work; it has no reference to the `Workers` that use it.

    Threads are counted by the slots that are alive. A thread whose start was interrupted has no
    living slot, so no caller waits for it.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._closed = False
        self.failures = 0
        self.reset()

    def reset(self) -> None:
        """Start with no thread and no work."""
        # Reentrant: the garbage collector or a signal may run the program's code while it is held,
        # and that code may submit work. So every step leaves the state consistent.
        self._lock = threading.RLock()
        self._pending: deque[Work] = deque()
        self._slots: LiveObjects[_Slot] = LiveObjects()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def slots(self) -> list[_Slot]:
        """Return the slots of the living threads."""
        return list(self._slots)

    def submit(self, work: Work, add: Callable[[Work], bool]) -> bool:
        """Queue `work` by `add` and start a thread if due; return whether it was accepted."""
        refuse_at_exit()
        try:
            if not add(work):
                return False
            self._wakes.put(None)
            self._start_if_due()
        except NoThreadError:
            # Existing threads will run it in their turn.
            if not self.slots() and self._take_back(work):
                raise
        except BaseException:
            self._take_back(work)
            with contextlib.suppress(NoThreadError):
                self._start_if_due()  # other work may depend on the thread whose start was interrupted
            raise
        return True

    def add(self, work: Work) -> bool:
        """Queue work for a thread."""
        self._pending.append(work)
        return True

    def add_if_idle(self, work: Work) -> bool:
        """Queue work if a thread can take it at once; return whether it was queued."""
        with self._lock:
            pending, _, busy = self._load()
            return pending + busy < self._size and self.add(work)

    def close(self) -> None:
        """End each thread once it has no work."""
        # Without the lock: the garbage collector may call this while the lock is held.
        self._closed = True
        for _ in range(self._size):
            self._wakes.put(None)

    def _start_if_due(self) -> None:
        """Start a thread if one is due."""
        # In a list, so that it can be emptied: an error keeps the frames of an interrupted start alive.
        reserved: list[_Slot] = []
        try:
            if self._reserve(reserved):
                start_thread(lambda: self._run(reserved), self._name)
        except BaseException:
            reserved.clear()  # the thread object may be referenced elsewhere, and may even start later
            raise

    def _reserve(self, reserved: list[_Slot]) -> bool:
        """Reserve a slot in `reserved` for a new thread; return whether a thread is due."""
        with self._lock:
            pending, idle, _ = self._load()
            if pending <= idle:
                return False
            reserved.append(_Slot())
            return self._add(reserved[0])

    def _load(self) -> tuple[int, int, int]:
        """Return how much work waits, how many threads are idle, and how many are busy."""
        while True:
            pending = len(self._pending)
            states = [slot.idle for slot in self._slots]
            if len(self._pending) == pending:  # else a thread has taken work meanwhile
                return pending, states.count(True), states.count(False)

    def _add(self, slot: _Slot) -> bool:
        """Count a slot if there is room for it; return whether there was."""
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
        """Remove work that no thread has begun; return whether it was still queued."""
        try:
            self._pending.remove(work)
        except ValueError:
            return False
        return True

    def _run(self, reserved: list[_Slot]) -> None:
        slot = self._take_slot(reserved)
        while slot is not None:
            may_exit = self._wait_for_work()
            while (work := self._take_work(slot)) is not None:
                self._run_work(work)
                slot.idle = True
            if may_exit and self._exit_unless_needed(slot):
                slot = None

    def _take_slot(self, reserved: list[_Slot]) -> _Slot | None:
        """Return the slot reserved for this thread, or another one if there is room."""
        try:
            return reserved.pop()
        except IndexError:
            slot = _Slot()
            return slot if self._add(slot) else None

    def _wait_for_work(self) -> bool:
        """Wait for work; return whether the thread may exit if there is none."""
        try:
            self._wakes.get(timeout=0.0 if self._closed else LINGER)
        except queue.Empty:
            return True
        return self._closed

    def _take_work(self, slot: _Slot) -> Work | None:
        # Without the lock: its holder may wait for this work. The slot stops being idle before work is
        # taken, so that no other work is assigned to this thread.
        slot.idle = False
        try:
            return self._pending.popleft()
        except IndexError:
            slot.idle = True
            return None

    def _run_work(self, work: Work) -> None:
        try:
            work()
        except BaseException:  # it would end a thread that other work depends on
            self.failures += 1
            log.exception("background task failed")

    def _exit_unless_needed(self, slot: _Slot) -> bool:
        """Give up the slot unless there is work; return whether the thread exits."""
        # First gives up the slot, then looks: work submitted in between gets a new thread.
        self._slots.discard(slot)
        return not (self._pending and self._add(slot))


_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


def _after_fork() -> None:
    for workers in list(_workers):
        workers.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
