"""Callers that read many keys whose values never change: any other value is of another key."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from faults.loops import Loop
from faults.players import FILL_BATCH, FILL_TIMEOUT, Part, Worker
from faults.values import key_of
from shardcache import AsyncClient, Client

BATCH: Final = 200  # keys
REFILL: Final = 8  # turns from one in which missing keys are written to the next
LONGEST: Final = 52.0  # seconds

# Values are those that a client returns, hence `Any`.


class Judge:
    """Knows the value of each key, and counts what was read."""

    def __init__(self, keys: int) -> None:
        self.tally: Counter[str] = Counter()
        self.values = {key: f"{key}, and no other key's" for key in map(key_of, range(keys))}

    def judge(self, found: Mapping[str, Any]) -> None:
        """Count the values of a batch, and those that are not their key's."""
        self.tally["found"] += len(found)
        if not found.items() <= self.values.items():
            self.tally["mixed"] += sum(self.values.get(key) != found[key] for key in found)

    def missing(self, keys: list[str], found: Mapping[str, Any]) -> dict[str, str]:
        """Return the keys of a batch that were not found, with their values."""
        return {key: self.values[key] for key in keys if key not in found}


class Turns:
    """What one worker reads, turn after turn, until enough was found or its time is over."""

    def __init__(self, judge: Judge, seed: int, wanted: int) -> None:
        self._judge = judge
        self._random = random.Random(seed)
        self._keys = list(judge.values)
        self._random.shuffle(self._keys)
        self._wanted = wanted
        self._until = time.monotonic() + LONGEST
        self._count = seed  # so that not all write at a time

    def next(self) -> list[str] | None:
        """Return the keys of the next batch, of which the first is read alone as well."""
        if self._judge.tally["found"] >= self._wanted or time.monotonic() > self._until:
            return None
        self._count += 1
        first = self._random.randrange(len(self._keys) - BATCH)
        return self._keys[first : first + BATCH]

    def refills(self) -> bool:
        """Return whether the missing keys of this turn are to be written."""
        return self._count % REFILL == 0


class Readers(ABC):
    """Workers that share one client."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._judge = Judge(part.keys)
        self._client = self._open(part)

    def fill(self) -> None:
        """Write every value, patiently."""
        values = self._judge.values
        with Client(self.part.urls, timeout=FILL_TIMEOUT, on_error="raise") as client:
            for first in range(0, len(values), FILL_BATCH):
                some = list(values)[first : first + FILL_BATCH]
                client.set_many({key: values[key] for key in some})

    def read(self, wanted: int) -> Counter[str]:
        """Read until that many values were found; return the counts."""
        self._run([Turns(self._judge, seed, wanted) for seed in range(self.part.workers)])
        return self._judge.tally

    def _note(self, error: Exception) -> None:
        self._judge.tally["leaked"] += 1
        self._judge.tally[f"leaked: {type(error).__name__}: {error}"] += 1

    @abstractmethod
    def _run(self, each: list[Turns]) -> None: ...

    @abstractmethod
    def _open(self, part: Part) -> Any: ...


class ReadingThreads(Readers):
    """Threads with a blocking client."""

    def _run(self, each: list[Turns]) -> None:
        threads = [Worker(partial(self._work, turns)) for turns in each]
        for thread in threads:
            thread.end()

    def _work(self, turns: Turns) -> None:
        judge, client = self._judge, self._client
        while keys := turns.next():
            try:
                found = client.get_many(keys)
                one = client.get(keys[0])
                if turns.refills() and len(found) < len(keys):
                    client.set_many(judge.missing(keys, found))
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                self._note(error)
                continue
            judge.judge(found)
            if one is not None:
                judge.judge({keys[0]: one})

    def _open(self, part: Part) -> Client:
        return Client(part.urls, timeout=part.timeout)


class ReadingTasks(Readers):
    """Tasks with an asyncio client."""

    def __init__(self, part: Part) -> None:
        self._loop = Loop()
        super().__init__(part)

    def _run(self, each: list[Turns]) -> None:
        async def work_all() -> None:
            await asyncio.gather(*map(self._work, each))

        self._loop.run(work_all)

    async def _work(self, turns: Turns) -> None:
        judge, client = self._judge, self._client
        while keys := turns.next():
            try:
                found = await client.get_many(keys)
                one = await client.get(keys[0])
                if turns.refills() and len(found) < len(keys):
                    await client.set_many(judge.missing(keys, found))
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                self._note(error)
                continue
            judge.judge(found)
            if one is not None:
                judge.judge({keys[0]: one})

    def _open(self, part: Part) -> AsyncClient:
        return AsyncClient(part.urls, timeout=part.timeout)
