"""One caller that makes one call at a time, in a process whose parsers, names or log are tampered with."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from faults.loops import Loop
from faults.players import Part
from shardcache import AsyncClient, Client
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.wire import RedisWire
from shardcache.backends.transport.resolver import NameResolver

FILL_TIMEOUT: Final = 10.0  # seconds
FILL_BATCH: Final = 50
PAUSE: Final = 0.01  # seconds from one attempt to the next

# Answers are of the type that each call returns, hence `Any`.


def value_of(number: int, size: int) -> str:
    """Return the value of a key: its number, over and over."""
    word = f"{number}:"
    return (word * (size // len(word) + 1))[:size]


class Lines(logging.Handler):
    """The lines that the library logs as warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.texts.append(record.getMessage())


class Single(ABC):
    """Makes one call at a time under `on_error="miss"`."""

    def __init__(self, part: Part) -> None:
        self._urls = part.urls
        self._lines = Lines()
        log = logging.getLogger("shardcache")
        log.addHandler(self._lines)
        log.propagate = False
        self._client = self._open(part)

    def fill(self, count: int, size: int) -> None:
        """Store values of some bytes, patiently."""
        with Client(self._urls, timeout=FILL_TIMEOUT, on_error="raise") as client:
            for first in range(0, count, FILL_BATCH):
                numbers = range(first, min(first + FILL_BATCH, count))
                client.set_many({f"k{number}": value_of(number, size) for number in numbers})

    def read_many(self, count: int, size: int) -> tuple[int, int, float]:
        """Read them in one call; return how many came, how many were wrong, and the seconds."""
        keys = [f"k{number}" for number in range(count)]
        began = time.monotonic()
        found = self._done(lambda: self._client.get_many(keys))
        seconds = time.monotonic() - began
        wrong = sum(found[key] != value_of(int(key[1:]), size) for key in found)
        return len(found), wrong, seconds

    def set(self, value: str) -> bool:
        """Store the one key; return whether it was stored."""
        return bool(self._done(lambda: self._client.set("one", value)))

    def get(self) -> Any:
        """Return the value of that key."""
        return self._done(lambda: self._client.get("one"))

    def await_store(self, seconds: float) -> float | None:
        """Store it again and again; return after how many seconds that worked, `None` for never."""
        began = time.monotonic()
        while not self.set("again"):
            if time.monotonic() - began > seconds:
                return None
            time.sleep(PAUSE)
        return time.monotonic() - began

    def slow_parsers(self, seconds: float) -> None:
        """Have each piece of a reply take that long to be read."""
        for wire in (MemcachedWire, RedisWire):
            _slow(wire, seconds)

    def hang_names(self, seconds: float) -> None:
        """Have each look-up of a name take that long from now on."""
        resolve = NameResolver.resolve

        def hang(self: NameResolver, node: Any) -> Any:
            time.sleep(seconds)
            return resolve(self, node)

        NameResolver.resolve = hang  # type: ignore[method-assign]  # that is the fault

    def ejected(self) -> int:
        """Return how many nodes are ejected now."""
        return len(self._client.ejected)

    def lines(self) -> list[str]:
        """Return the warnings that were logged."""
        return self._lines.texts

    @abstractmethod
    def _open(self, part: Part) -> Any: ...

    @abstractmethod
    def _done(self, call: Callable[[], Any]) -> Any:
        """Make a call, and return its answer."""


def _slow(wire: type[Any], seconds: float) -> None:
    feed = wire.feed

    def feed_slowly(self: Any, data: bytes) -> Any:
        time.sleep(seconds)
        return feed(self, data)

    wire.feed = feed_slowly


class ThreadSingle(Single):
    """Calls with the blocking client."""

    def _open(self, part: Part) -> Client:
        return Client(part.urls, timeout=part.timeout)

    def _done(self, call: Callable[[], Any]) -> Any:
        return call()


class TaskSingle(Single):
    """Calls with the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, part: Part) -> AsyncClient:
        return AsyncClient(part.urls, timeout=part.timeout)

    def _done(self, call: Callable[[], Any]) -> Any:
        return self._loop.run(call)
