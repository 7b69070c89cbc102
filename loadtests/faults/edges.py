"""Keys, lives, values and counts at the edges of what servers take, on a server and in memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from faults.loops import Loop
from faults.players import Part
from shardcache import (
    AsyncClient,
    Client,
    NodeError,
    NotACounterError,
    ShardCacheError,
    ValueTooLargeError,
)
from shardcache.testing.contract.values import EDGE_VALUES

LIMIT: Final = "?max_value_bytes=100200"  # a little more than the largest value that is to be kept
MODEL: Final = "memory://model"
DAY: Final = 24 * 3600
VALUE: Final = "value"
LIFE: Final = "life"
COUNT: Final = "count"
LATE: Final = 2.0  # seconds by which two servers may differ in what is left of a life

# Keys, lives, values and clients may be anything, hence `Any`.

KEYS: Final[tuple[Any, ...]] = (
    *("", " ", "a b", "a\nb", "a\r\nflush_all\r\n", "\0", "\t", "\x7f", "k" * 250, "k" * 251),
    *("k" * 1000, "k" * 65_536, "日本", "é" * 125, "é" * 126, "🐍" * 100, "\ud800", "~sc:k:", "~"),
    *(b"", b"\xff", b"\x80abc", b"a b", b"k" * 250, b"k" * 251, bytearray(b"k"), 7, None, ("a",)),
)
LIVES: Final[tuple[Any, ...]] = (
    *(None, 0, -1, -0.001, 0.0, 2, 2.5, 59, 60.0, 30 * DAY - 1, 30 * DAY, 30 * DAY + 1),
    *(60 * DAY, 365 * DAY, 10_000 * DAY, 2**31 - 1, 2**31, 2**32, 2**63, 1e18, math.inf, math.nan),
    *("5", True, b"5", [5], timedelta(0), timedelta(seconds=-1), timedelta(days=1)),
)
# Larger than the limit of the server; a node in memory has no limit for one value.
TOO_LARGE: Final[tuple[Any, ...]] = (b"v" * 150_000, "é" * 75_000, ["v" * 150_000])
VALUES: Final[tuple[Any, ...]] = (
    *EDGE_VALUES,
    *TOO_LARGE,
    *(10**640, -(10**640), [[[[[[]]]]]], {"deep": {"deep": {}}}),
    *("\ud800", object(), len, math.nan, {1: {2, 3}}, [1, 2.5, True, None], "0", "-1", b"-0"),
)
# Not text of digits, which memcached takes for a number.
COUNTS: Final[tuple[tuple[Any, int], ...]] = (
    *((None, 1), (0, 1), (0, 0), (1, -1), (0, -1), (5, -10), (2**63 - 2, 1), (2**63 - 1, 1)),
    *((0, 2**63 - 1), (0, 2**63), (2**63, 1), (2**64, 1), (-1, 1), ("x", 1)),
    *((1.5, 1), ([1], 1), (None, -5), (100, -1), (True, 1)),
)


class Outcome(NamedTuple):
    """What came of an edge, in words, and whether its client refused it."""

    words: str
    refused: bool


class Edges(ABC):
    """A client of one server, and one of a node in memory, which is the model."""

    def __init__(self, part: Part) -> None:
        (url,) = part.urls
        self._clients = [self._open(each, part.timeout) for each in (url, MODEL)]
        self._subjects: dict[str, tuple[Sequence[Any], Callable[[Any, Any], str]]] = {
            "keys": (KEYS, self._meet_key),
            "lives": (LIVES, self._meet_life),
            "values": (VALUES, self._meet_value),
            "counts": (COUNTS, self._meet_count),
        }
        if url.startswith("pymemcache:"):  # through which no life can be read
            del self._subjects["lives"]

    def edges(self) -> dict[str, int]:
        """Return how many edges each subject has."""
        return {subject: len(edges) for subject, (edges, _) in self._subjects.items()}

    def prepare(self, subject: str, place: int) -> None:
        """Leave nothing of the edge before; store what is to be counted."""
        edges, _ = self._subjects[subject]
        for client in self._clients:
            for key in (LIFE, COUNT):
                self._done(client.delete, key)
            if subject == "counts" and edges[place][0] is not None:
                self._done(client.set, COUNT, edges[place][0])

    def meet(self, subject: str, place: int) -> Outcome:
        """Do on the server what an edge is about; return what came of it."""
        return self._meet(self._clients[0], subject, place)

    def expect(self, subject: str, place: int) -> tuple[str, Outcome]:
        """Do the same in memory; return what the edge is, and what came of it."""
        edges, _ = self._subjects[subject]
        if any(edges[place] is value for value in TOO_LARGE):
            return repr(edges[place])[:40], Outcome(ValueTooLargeError.__name__, refused=False)
        return repr(edges[place])[:40], self._meet(self._clients[1], subject, place)

    def _meet(self, client: Any, subject: str, place: int) -> Outcome:
        edges, act = self._subjects[subject]
        try:
            return Outcome(act(client, edges[place]), refused=False)
        except (ShardCacheError, TypeError, ValueError) as error:
            by_client = not isinstance(error, (NodeError, NotACounterError))
            return Outcome(type(error).__name__, by_client)

    def _meet_key(self, client: Any, key: Any) -> str:
        stored = self._done(client.set, key, VALUE)
        found = self._done(client.get, key), self._done(client.get_many, [key])
        removed = self._done(client.delete, key), self._done(client.get, key)
        return f"{stored} {found == (VALUE, {key: VALUE})} {removed}"

    def _meet_life(self, client: Any, life: Any) -> str:
        stored = self._done(client.set, LIFE, VALUE, life)
        if self._done(client.get, LIFE) is None:
            return f"{stored}, gone"
        seconds = life.total_seconds() if isinstance(life, timedelta) else life
        left = self._left(client)
        if left is None or left == math.inf:
            return f"{stored}, for ever"
        return f"{stored}, {'as long' if abs(left - seconds) <= LATE else f'{left:.0f} s'}"

    def _left(self, client: Any) -> float | None:
        left: float | None = self._done(client.ttl, LIFE)
        return left

    def _meet_value(self, client: Any, value: Any) -> str:
        stored = self._done(client.set, "value", value)
        found = self._done(client.get, "value", "missing")
        return f"{stored} {type(found).__name__} {repr(found) == repr(value)}"

    def _meet_count(self, client: Any, edge: tuple[Any, int]) -> str:
        _, delta = edge
        counted = self._done(client.incr, COUNT, delta)
        return f"{counted} {self._done(client.get, COUNT)}"

    @abstractmethod
    def _open(self, url: str, timeout: float) -> Any: ...

    @abstractmethod
    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any: ...


class ThreadEdges(Edges):
    """With the blocking client."""

    def _open(self, url: str, timeout: float) -> Client:
        return Client(url, timeout=timeout, on_error="raise")

    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)


class TaskEdges(Edges):
    """With the asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _open(self, url: str, timeout: float) -> AsyncClient:
        return AsyncClient(url, timeout=timeout, on_error="raise")

    def _done(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._loop.run(lambda: call(*arguments))
