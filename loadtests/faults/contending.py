"""Contenders for one lock, each with its own client, and a witness that sees two holders at once."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from functools import partial
from typing import Any, Final

from tenacity import wait_random

from faults.loops import Loop
from faults.players import Part, Worker
from shardcache import AsyncClient, Client
from shardcache.clients.locks import LeaseBase
from shardcache.errors import LockError

NAME: Final = "contended"
TTL: Final = 20.0  # seconds; no holder keeps it for that long
WAIT: Final = 2.0  # seconds for one acquire
BACKOFF: Final = wait_random(0, 0.01)
HELD: Final = 0.001  # seconds
PATIENCE: Final = 6.0  # seconds without an acquire, after which there will be none
LONGEST: Final = 50.0  # seconds

# A client and its lock are of either kind, hence `Any`.


class Witness:
    """Sees who is in, whatever their clients believe of one another."""

    def __init__(self, wanted: int) -> None:
        self.tally: Counter[str] = Counter()
        self._wanted = wanted
        self._lock = threading.Lock()
        self._inside: list[LeaseBase] = []
        self._began = self._last = time.monotonic()

    def goes_on(self) -> bool:
        """Return whether there are to be more acquires, and may be."""
        now = time.monotonic()
        in_time = now < self._last + PATIENCE and now < self._began + LONGEST
        return in_time and self.tally["acquired"] < self._wanted

    def enter(self, lease: LeaseBase) -> None:
        """Note a holder, and each other one whose lease still holds."""
        with self._lock:
            self._last = time.monotonic()
            self.tally["acquired"] += 1
            self.tally["double"] += sum(other.valid for other in self._inside)
            self._inside.append(lease)

    def leave(self, lease: LeaseBase) -> None:
        """Note that a holder is about to release its lease."""
        with self._lock:
            self._inside.remove(lease)

    def note(self, error: Exception) -> None:
        """Count an error of an acquire: a lock that is not to be had is documented."""
        with self._lock:
            self.tally["not acquired" if isinstance(error, LockError) else "leaked"] += 1


class Contenders(ABC):
    """As many clients as there are workers, whose locks have one name."""

    def __init__(self, part: Part) -> None:
        self._clients = [self._open(part) for _ in range(part.workers)]
        self._locks = [
            client.lock(NAME, ttl=TTL, backoff=BACKOFF, on_lost="ignore")
            for client in self._clients
        ]

    @abstractmethod
    def contend(self, wanted: int) -> Counter[str]:
        """Acquire and release the lock until that was done so often; return what was seen."""

    @abstractmethod
    def _open(self, part: Part) -> Any: ...


class ContendingThreads(Contenders):
    """Each contender is a thread."""

    def contend(self, wanted: int) -> Counter[str]:
        """Acquire and release the lock until that was done so often; return what was seen."""
        witness = Witness(wanted)
        threads = [Worker(partial(self._work, lock, witness)) for lock in self._locks]
        for thread in threads:
            thread.end()
        return witness.tally

    @staticmethod
    def _work(lock: Any, witness: Witness) -> None:
        while witness.goes_on():
            try:
                lease = lock.acquire(wait=WAIT)
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                witness.note(error)
                continue
            witness.enter(lease)
            time.sleep(HELD)
            witness.leave(lease)
            lease.release()

    def _open(self, part: Part) -> Client:
        return Client(part.urls, timeout=part.timeout)


class ContendingTasks(Contenders):
    """Each contender is a task."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def contend(self, wanted: int) -> Counter[str]:
        """Acquire and release the lock until that was done so often; return what was seen."""
        witness = Witness(wanted)

        async def contend() -> None:
            await asyncio.gather(*(self._work(lock, witness) for lock in self._locks))

        self._loop.run(contend)
        return witness.tally

    @staticmethod
    async def _work(lock: Any, witness: Witness) -> None:
        while witness.goes_on():
            try:
                lease = await lock.acquire(wait=WAIT)
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                witness.note(error)
                continue
            witness.enter(lease)
            await asyncio.sleep(HELD)
            witness.leave(lease)
            await lease.release()

    def _open(self, part: Part) -> AsyncClient:
        return AsyncClient(part.urls, timeout=part.timeout)
