"""Callers of a node that is stopped with values in its memory, and looked at when it is back."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import Any, Final

from faults.loops import Loop
from faults.players import Part
from faults.usage import Usage, measure_usage
from shardcache import AsyncClient, Client, DeletesOverflowed, NodeError, Observer

OLD: Final = "old"
LARGE: Final = 20_000  # bytes, so that a write waits in more than one place
BATCH: Final = 500

# Results are those of either client, hence `Any`.


class Overflows(Observer):
    """Counts how often a client says that it can remember no more."""

    def __init__(self) -> None:
        self.count = 0

    def deletes_overflowed(self, event: DeletesOverflowed) -> None:  # noqa: ARG002 - it has one count
        """Count it."""
        self.count += 1


class Writer(ABC):
    """Writes values, overwrites and deletes them while their node is stopped, and reads them after."""

    def __init__(self, part: Part) -> None:
        self._overflows = Overflows()
        self._client, self._raising = self._open(part, "miss"), self._open(part, "raise")
        self._filler = Client(part.urls, timeout=5, on_error="raise", **part.options)

    def keys_on(self, place: int, count_: int, name: str) -> list[str]:
        """Return some keys of the node at a place."""
        node = self._client.nodes[place]
        names = (f"{name}:{number}" for number in count())
        return list(islice((key for key in names if self._client.node_for(key) == node), count_))

    def store(self, keys: Sequence[str]) -> None:
        """Store an old value under each key."""
        for first in range(0, len(keys), BATCH):
            self._filler.set_many(dict.fromkeys(keys[first : first + BATCH], OLD))

    def overwrite(self, keys: Sequence[str]) -> int:
        """Overwrite two of three keys, and delete the third; return how many of these were done."""
        done = 0
        for number, key in enumerate(keys):
            client = self._raising if number % 2 else self._client
            with suppress(NodeError):
                if number % 3:
                    done += bool(self._done(client.set, key, "new"))
                else:
                    done += bool(self._done(client.delete, key))
        return done

    def delete(self, keys: Sequence[str]) -> list[bool]:
        """Delete keys; return of each whether that was confirmed."""
        return [bool(self._done(self._client.delete, key)) for key in keys]

    @abstractmethod
    def store_at_once(self, keys: Sequence[str]) -> None:
        """Store a large old value under each key, all at the same time."""

    def count_old(self, keys: Sequence[str]) -> int:
        """Return how many keys have an old value."""
        values = [self._done(self._client.get, key) for key in keys]
        return sum(str(value).startswith(OLD) for value in values)

    def watch_old(self, keys: Sequence[str], seconds: float) -> list[float]:
        """Read keys again and again; return after how many seconds each old value was read."""
        began = time.monotonic()
        found = []
        while time.monotonic() - began < seconds:
            found += [time.monotonic() - began] * self.count_old(keys)
            time.sleep(0.01)
        return found

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until every node is asked again; return the seconds it took, `None` if that was too long."""
        began = time.monotonic()
        while self._client.ejected:
            if time.monotonic() - began > seconds:
                return None
            time.sleep(0.01)
        return time.monotonic() - began

    def ejected(self) -> int:
        """Return how many nodes are ejected now."""
        return len(self._client.ejected)

    def overflows(self) -> int:
        """Return how often the client said that it can remember no more."""
        return self._overflows.count

    def pending(self) -> int:
        """Return how many keys are to be deleted, on all nodes."""
        return sum(int(each["pending_deletes"]) for each in self._client.counters().values())

    def usage(self) -> Usage:
        """Return what this process uses."""
        return measure_usage()

    @abstractmethod
    def _open(self, part: Part, way: str) -> Any: ...

    @abstractmethod
    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any: ...


class ThreadsWriter(Writer):
    """Writes with a blocking client."""

    def store_at_once(self, keys: Sequence[str]) -> None:
        """Store a large old value under each key, each in its own thread."""
        value = OLD + "x" * LARGE
        threads = [threading.Thread(target=self._client.set, args=(key, value)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _open(self, part: Part, way: str) -> Client:
        observers = [self._overflows] if way == "miss" else []
        return Client(
            part.urls, timeout=part.timeout, on_error=way, observers=observers, **part.options
        )

    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)


class TasksWriter(Writer):
    """Writes with an asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def store_at_once(self, keys: Sequence[str]) -> None:
        """Store a large old value under each key, each in its own task."""
        value = OLD + "x" * LARGE

        async def store() -> None:
            await asyncio.gather(*(self._client.set(key, value) for key in keys))

        self._loop.run(store)

    def _open(self, part: Part, way: str) -> AsyncClient:
        observers = [self._overflows] if way == "miss" else []
        return AsyncClient(
            part.urls, timeout=part.timeout, on_error=way, observers=observers, **part.options
        )

    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._loop.run(lambda: call(*arguments))
