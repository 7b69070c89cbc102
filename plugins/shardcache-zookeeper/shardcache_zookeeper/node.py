"""The node of a lock that is held, as its session keeps it."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import weakref
from typing import Protocol

from shardcache_zookeeper.words import Words


class LossListener(Protocol):
    """An object that is notified when a lock is lost."""

    def notify_lost(self, reason: str) -> None:
        """Notify the client of it."""


class HeldNode:
    """A node, and until when it stands for a lock: at most until `ends`, in monotonic seconds.

    It is `lost` for a reason, or `over` if the client has released it or its time has run out. The
    session keeps it, and so must not keep the client: `user`, and who learns of a loss, are held weakly.
    """

    __slots__ = (
        "_lock",
        "_words",
        "data",
        "directory",
        "ends",
        "fence",
        "guid",
        "listener",
        "lost",
        "over",
        "path",
        "user",
    )

    def __init__(  # noqa: PLR0913 - all that it consists of
        self, path: str, *, fence: int, data: bytes, ends: float, words: Words, user: object
    ) -> None:
        self.path = path
        self.directory, _, name = path.rpartition("/")
        self.guid = name.partition("-")[0]
        self.fence = fence
        self.data = data
        self.ends = ends
        self.lost = ""
        self.over = False
        self.user = weakref.ref(user)
        self.listener: weakref.ref[LossListener] | None = None
        self._words = words
        self._lock = threading.Lock()

    def remaining(self) -> float:
        """Return for how many more seconds it surely stands for the lock; 0 when it does not."""
        if self.over or self.lost:
            return 0.0
        left = min(self.ends, self._words.until()) - time.monotonic()
        if left > 0:
            return left
        self.over = True  # a later word of the session does not revive it
        return 0.0

    def extend(self, ends: float, data: bytes) -> bool:
        """Extend it until `ends`; return whether it was still held."""
        with self._lock:
            if not self.remaining():
                return False
            self.ends = ends
            self.data = data
            return True

    def expire(self) -> bool:
        """Return whether it has ended; if so, no extension revives it."""
        with self._lock:
            return not self.remaining()

    def lose(self, reason: str) -> LossListener | None:
        """Count as lost; return who is to be notified. Do nothing if it is over."""
        with self._lock:
            if self.over or self.lost:
                return None
            self.lost = reason
            return None if self.listener is None else self.listener()


def describe(ttl: float) -> bytes:
    """Return what a node tells operators: whose it is, and until when by the time of day."""
    owner = f"{platform.node()} process {os.getpid()}"
    return json.dumps({"owner": owner, "until": round(time.time() + ttl, 3)}).encode()
