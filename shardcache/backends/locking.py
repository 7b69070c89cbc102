"""A lock that is never locked in a forked child."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager


class ProcessLock:
    """A reentrant lock per process: no thread of a forked child could release its parent's lock.

    It is reentrant because the garbage collector or a signal may run the program's code while the
    lock is held, and that code may need the lock as well.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, AbstractContextManager[object]] = {}

    def current(self) -> AbstractContextManager[object]:
        """Return the lock of this process, for a `with`.

        It is a lock of `threading`: an interrupt in an `__enter__` written here could leave it locked.
        """
        process = os.getpid()
        return self._locks.get(process) or self._locks.setdefault(process, threading.RLock())
