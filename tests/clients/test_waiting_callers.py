"""What a caller costs that waits for another's recompute, by counts: the same on every machine."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import tracemalloc

import pytest

from shardcache import AsyncClient
from shardcache.operations.recompute.request import Request

CALLERS = 200
# Objects that the collector looks at, for each waiting caller, its task among them. They make a miss of
# many callers cost more than in proportion. A bare task that waits has 8, and takes 1.1 KB.
TRACKED = 18
KILOBYTES = 3


class Waiting:
    """A cached function that is being recomputed, and the callers that wait for it."""

    def __init__(self, client):
        self._client = client
        self._open = asyncio.Event()
        self._leader = None
        self.tasks = []

        @client.cached(ttl=300, wait=60, namespace="waiting")
        async def load(number):
            await self._open.wait()
            return {"number": number}

        self.load = load

    async def begin(self):
        """Have one caller recompute, and two wait, so that what all share exists."""
        await self.load.set(0, 0)
        await self.load(0)
        self._client._namespace.generations.due = (
            math.inf
        )  # on a slow machine it would be due again
        self._leader = asyncio.ensure_future(self.load(1))
        await asyncio.sleep(0.02)
        await self.join(2)

    async def join(self, count):
        """Have as many callers more wait."""
        self.tasks += [asyncio.ensure_future(self.load(1)) for _ in range(count)]
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self):
        """End the function; return what the callers got."""
        self._open.set()
        return await asyncio.gather(self._leader, *self.tasks)


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs one test with a client of memory nodes, and no installed plugin."""
    monkeypatch.setenv("SHARDCACHE_PLUGINS", "none")
    monkeypatch.setattr(Request, "lease", 600.0)  # a pause of a busy machine would end the claim

    def run(test):
        async def main():
            async with AsyncClient("memory://a,b,c") as client:
                waiting = Waiting(client)
                await waiting.begin()
                await test(waiting)
                results = await waiting.end()
                assert results == [{"number": 1}] * len(results)
                assert len({id(result) for result in results}) == len(results)
                info = waiting.load.cache_info()
                assert (info.recomputes, info.coalesced) == (1, len(results) - 1)

        asyncio.run(main())

    return run


def test_a_waiting_caller_has_few_objects(run):
    """The collector looks at all of them again and again while callers come."""

    async def test(waiting):
        growths = []
        for _ in range(5):  # of which one has met no object of anything else in this process
            gc.collect()
            before = len(gc.get_objects())
            await waiting.join(CALLERS)
            gc.collect()
            growths.append(len(gc.get_objects()) - before)
        assert min(growths) / CALLERS < TRACKED + 0.9

    run(test)


def test_a_waiting_caller_takes_little_memory(run):
    """All in all, its task included."""

    async def test(waiting):
        gc.collect()
        tracemalloc.start()
        try:
            growths = []
            for _ in range(5):  # as above
                before, _ = tracemalloc.get_traced_memory()
                await waiting.join(CALLERS)
                gc.collect()
                growths.append(tracemalloc.get_traced_memory()[0] - before)
        finally:
            tracemalloc.stop()
        assert min(growths) / CALLERS < KILOBYTES * 1024

    run(test)


def calls_of(function):
    """Return how many Python functions a coroutine function enters."""
    entered = [0]

    def note(_frame, event, _argument):
        if event == "call":
            entered[0] += 1

    async def count():
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            await function()
        finally:
            sys.setprofile(before)
        return entered[0]

    return count


def test_the_last_caller_joins_as_fast_as_the_first(run):
    """A thousand join by ten times the calls of a hundred."""

    async def test(waiting):
        hundred = await calls_of(lambda: waiting.join(100))()
        await waiting.join(800)
        another_hundred = await calls_of(lambda: waiting.join(100))()
        assert abs(another_hundred - hundred) <= 5

    run(test)


def test_all_callers_have_one_timer(run, monkeypatch):
    """Of the flight."""

    async def test(waiting):
        loop, timers = asyncio.get_running_loop(), []
        call_at = loop.call_at
        monkeypatch.setattr(
            loop, "call_at", lambda *args, **kwargs: timers.append(args) or call_at(*args, **kwargs)
        )
        await waiting.join(CALLERS)
        assert not timers, "the two that joined before them have set it"

    run(test)
