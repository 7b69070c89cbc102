"""A lock that no forked child finds locked."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager


class ProcessLock:
    """A reentrant lock, one for each process: in a forked child nobody would release its parent's.

    Reentrant, because the garbage collector or a signal may call the program's code while it is
    held, and that may want it too.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, AbstractContextManager[object]] = {}

    def own(self) -> AbstractContextManager[object]:
        """Return the lock of this process, for a `with`.

        It is that of `threading` itself: an interrupt in an `__enter__` of ours could leave it locked.
        """
        process = os.getpid()
        return self._locks.get(process) or self._locks.setdefault(process, threading.RLock())
