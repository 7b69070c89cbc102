"""Clients that keep what they load from a source, and count each load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from faults.players import Player, TasksPlayer, ThreadsPlayer, Worker
from faults.values import key_of

TTL: Final = 3600.0  # seconds that a loaded value is to live


class Loaded(NamedTuple):
    """What was loaded: keys of one node, the most loads of one of them, loads of other nodes' keys.

    `wrong` counts values of another key.
    """

    keys: int
    most: int
    others: int
    wrong: int


class Loads:
    """The loads of each key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[int] = Counter()
        self.wrong = 0

    def load(self, number: int) -> str:
        """Return the value of a key from the source."""
        with self._lock:
            self.counts[number] += 1
        return f"loaded:{number}"

    def judge(self, number: int, value: Any) -> None:  # whatever a client returned
        """Count a value that is not the key's."""
        self.wrong += value != f"loaded:{number}"

    def end(self, nodes: Sequence[int], place: int) -> Loaded:
        """Return what was loaded, for the keys of a node and for the others."""
        mine = [count for number, count in self.counts.items() if nodes[number] == place]
        others = sum(self.counts.values()) - sum(mine)
        return Loaded(len(mine), max(mine, default=0), others, self.wrong)


class Loading(Player):
    """Callers that read keys through `get_or_set`."""

    def eject(self, place: int) -> None:
        """Read keys of a node until it is ejected."""
        while not self.ejected():
            self.read_all(self.numbers(place)[:1])

    def firsts(self) -> range:
        """Return where each worker begins: far from the others, so that all keys are soon read."""
        return range(0, self.part.keys, -(-self.part.keys // self.part.workers))

    def numbers(self, place: int) -> list[int]:
        """Return the keys of a node."""
        return [number for number, node in enumerate(self.nodes) if node == place]


class LoadingThreads(Loading, ThreadsPlayer):
    """Threads."""

    def load(self, seconds: float, place: int) -> Loaded:
        """Have the workers read all keys for a while; return what was loaded."""
        loads, until = Loads(), time.monotonic() + seconds
        threads = [Worker(partial(self._load, loads, first, until)) for first in self.firsts()]
        for thread in threads:
            thread.end()
        return loads.end(self.nodes, place)

    def _load(self, loads: Loads, first: int, until: float) -> None:
        number, client = first, self.clients[0]
        while time.monotonic() < until:
            loads.judge(number, client.get_or_set(key_of(number), partial(loads.load, number), TTL))
            number = (number + 1) % self.part.keys

    def longest_life(self, place: int) -> float:
        """Return for how many seconds the values of a node's keys live, at most; 0 for none."""
        return longest(self.clients[0].ttl(key_of(number)) for number in self.numbers(place))


class LoadingTasks(Loading, TasksPlayer):
    """Tasks."""

    def load(self, seconds: float, place: int) -> Loaded:
        """Have the workers read all keys for a while; return what was loaded."""
        loads = Loads()
        self.loop.run(lambda: self._load_all(loads, time.monotonic() + seconds))
        return loads.end(self.nodes, place)

    async def _load_all(self, loads: Loads, until: float) -> None:
        await asyncio.gather(*(self._load(loads, first, until) for first in self.firsts()))

    async def _load(self, loads: Loads, first: int, until: float) -> None:
        number, client = first, self.clients[0]
        while time.monotonic() < until:
            value = await client.get_or_set(key_of(number), partial(loads.load, number), TTL)
            loads.judge(number, value)
            number = (number + 1) % self.part.keys

    def longest_life(self, place: int) -> float:
        """Return for how many seconds the values of a node's keys live, at most; 0 for none."""
        return self.loop.run(lambda: self._longest_life(place))

    async def _longest_life(self, place: int) -> float:
        return longest([await self.clients[0].ttl(key_of(each)) for each in self.numbers(place)])


def longest(lives: Iterable[float | None]) -> float:
    """Return the longest of some lives; 0 without any."""
    return max((life for life in lives if life is not None), default=0.0)
