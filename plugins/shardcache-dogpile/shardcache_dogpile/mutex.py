"""The mutex of one key: a thread of this process at a time, and one process of all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shardcache import Lease, Lock, LockUnavailable


class Mutex:
    """A mutex over all processes that share the nodes; a `dogpile.cache.api.CacheMutex`.

    One thread of a process asks the nodes, the others wait for that thread. The mutex holds within its
    process only while too few nodes answer: `on_unavailable` is called with the reason. So it does
    while the value cannot be stored, as `is_storable` tells: each holder would create it in turn,
    and leave nothing for the next one.
    """

    def __init__(
        self,
        lock: Lock,
        is_storable: Callable[[], bool],
        on_unavailable: Callable[[LockUnavailable], None],
    ) -> None:
        self._lock = lock
        self._is_storable = is_storable
        self._on_unavailable = on_unavailable
        self._thread_lock = threading.Lock()
        self._lease: Lease | None = None

    def acquire(self, wait: bool = True) -> bool:  # noqa: FBT001, FBT002 - dogpile.cache's signature
        """Acquire the mutex, waiting for it without end if `wait`; return whether it is held."""
        if not self._thread_lock.acquire(blocking=wait):
            return False
        acquired = False
        try:
            acquired = self._acquire_lease(wait=wait)
        finally:
            if not acquired:
                self._thread_lock.release()
        return acquired

    def release(self) -> None:
        """Release the mutex; any thread may."""
        lease, self._lease = self._lease, None
        try:
            if lease is not None:
                lease.release()
        finally:
            self._thread_lock.release()

    def locked(self) -> bool:
        """Return whether any thread of any process holds the mutex."""
        if self._thread_lock.locked():
            return True
        try:
            return self._lock.held()
        except LockUnavailable as error:
            self._on_unavailable(error)
            return False

    def _acquire_lease(self, *, wait: bool) -> bool:
        if not self._is_storable():
            return True
        try:
            self._lease = self._lock.acquire(wait=None) if wait else self._lock.try_acquire()
        except LockUnavailable as error:
            self._on_unavailable(error)
            return True
        return self._lease is not None
