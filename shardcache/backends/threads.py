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
        if self._idle.acquire(blocking=False) or not self._may_grow():
            return
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except BaseException:
            self._shrink()
            raise

    @property
    def running(self) -> int:
        """Give how many threads there are."""
        return self._running

    def _run(self) -> None:
        while True:
            try:
                self._queue.get(timeout=LINGER)()
            except queue.Empty:
                if self._may_end():
                    return
                continue  # somebody has just counted on an idle thread
            self._idle.release()

    def _may_grow(self) -> bool:
        with self._lock:
            grows = self._running < self._size
            self._running += grows
        return grows

    def _may_end(self) -> bool:
        # In one step: work that comes between the look and the count would find no thread, and
        # no room for a new one.
        with self._lock:
            ends = self._queue.empty() and self._idle.acquire(blocking=False)
            self._running -= ends
        return ends

    def _shrink(self) -> None:
        with self._lock:
            self._running -= 1

    def _start_anew(self) -> None:
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._running = 0

    def forget_inherited(self) -> None:
        """Start anew in a forked child, which has none of its parent's threads."""
        self._start_anew()


_workers: weakref.WeakSet[Workers] = weakref.WeakSet()


def _after_fork() -> None:
    for workers in list(_workers):
        workers.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
