"""Threads for what can only block: few, started as they are needed, gone when they are not."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Final

LINGER: Final = 5.0  # seconds that a thread without work waits for more

Work = Callable[[], None]


class Workers:
    """At most `size` daemon threads. Not those of `concurrent.futures`: they hold up the exit.

    Work beyond that waits its turn. It must raise nothing, and end by itself.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._start_anew()
        _workers.add(self)

    def submit(self, work: Work) -> None:
        """Have `work` done by a thread that is idle, or a new one."""
        self._queue.put(work)
        if not self._counted():
            return
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except BaseException:
            self._end()
            raise

    @property
    def running(self) -> int:
        """Give how many threads there are."""
        return self._running

    def _run(self) -> None:
        while True:
            try:
                work = self._queue.get(timeout=LINGER)
            except queue.Empty:
                if self._may_end():
                    return
                continue
            self._take()
            work()
            self._rest()

    def _counted(self) -> bool:
        """Count a piece of work; say whether it needs a new thread, which is idle until it works."""
        with self._lock:
            self._waiting += 1
            grows = self._waiting > self._idle and self._running < self._size
            self._running += grows
            self._idle += grows
        return grows

    def _take(self) -> None:
        with self._lock:
            self._waiting -= 1
            self._idle -= 1

    def _rest(self) -> None:
        with self._lock:
            self._idle += 1

    def _may_end(self) -> bool:
        """Say that this thread may go; it stays if work was counted that nobody has taken."""
        with self._lock:
            if self._waiting:
                return False
            self._idle -= 1
            self._running -= 1
        return True

    def _end(self) -> None:
        with self._lock:
            self._idle -= 1
            self._running -= 1

    def _start_anew(self) -> None:
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._idle = 0  # of those that run
        self._waiting = 0  # pieces of work that no thread has taken

    def forget_inherited(self) -> None:
        """Start anew in a forked child, which has none of its parent's threads."""
        self._start_anew()


_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


def _after_fork() -> None:
    for workers in list(_workers):
        workers.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
