"""Many threads or tasks of one process call one cached function."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from shardcache import AsyncClient, Client, Observer
from shardcache.testing.waiting import eventually


class TestTogether:
    """Many callers of one process."""

    def test_of_fifty_threads_one_calls(self, memcached_servers):
        """Each thread has a copy of its own."""
        calls = []
        with Client([server.url for server in memcached_servers], timeout=5.0) as client:

            @client.cached(ttl=60, lock=True, namespace="f")
            def f():
                calls.append(1)
                eventually(lambda: f.cache_info().misses == 50, within=5.0)
                return {"list": []}

            results = [None] * 50

            def run(place):
                results[place] = f()

            threads = [threading.Thread(target=run, args=(place,)) for place in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert results == [{"list": []}] * 50
            assert len({id(result["list"]) for result in results}) == 50
            assert len(calls) == 1
            # One that was slow to join found the value on the node, and counts as neither.
            assert (f.cache_info().hits, f.cache_info().misses) == (0, 50)
            assert 0 < f.cache_info().coalesced <= 49

    @pytest.mark.slow
    async def test_of_ten_thousand_tasks_one_calls(self, redis_servers):
        """The node sees tens of reads at most."""
        calls = []
        urls = [server.url for server in redis_servers]
        async with AsyncClient(urls, timeout=60.0) as client:

            @client.cached(ttl=60, lock=True, wait=60.0, namespace="f")
            async def f():
                calls.append(1)
                await asyncio.sleep(0.1)
                return [1]

            results = await asyncio.gather(*(f() for _ in range(10_000)))
            assert results == [[1]] * 10_000
            assert len(calls) == 1
            stats = await client.stats()
            assert sum(figures.client["calls"] for figures in stats.values()) < 40

    async def test_a_shared_error_has_its_own_trace(self):
        """Every caller gets the error; only the leader has the original."""
        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                await asyncio.sleep(0.05)
                raise ValueError("none")

            errors = await asyncio.gather(*(f() for _ in range(100)), return_exceptions=True)
        assert {type(error) for error in errors} == {ValueError}
        assert {error.args for error in errors} == {("none",)}
        assert len({id(error) for error in errors}) == 100

    def test_recursion_calls_through(self):
        """A function that calls itself with the same arguments is not stuck."""
        with Client("memory://a,b,c") as client:
            depth = []

            @client.cached(ttl=60, lock=True, wait=5.0, namespace="f")
            def f():
                depth.append(1)
                return "bottom" if len(depth) == 2 else f()

            began = time.monotonic()
            assert f() == "bottom"
            assert time.monotonic() - began < 2.0

    def test_observers_hear_of_calls_and_spared_calls(self):
        """Observers hear of calls, and of callers who did not have to."""
        heard = []

        class Listener(Observer):
            def compute_finished(self, event):
                heard.append(("compute", event.stored, event.error))

            def stampede_prevented(self, event):
                heard.append((event.how, event.seconds > 0, None))

        with Client("memory://a,b,c", observers=[Listener()]) as client:
            flights = client._cluster.io.single_flight._flights

            @client.cached(ttl=60, namespace="f")
            def f():
                eventually(
                    lambda: [len(each._waiters) for each in flights.values()] == [2], within=20
                )
                return 1

            threads = [threading.Thread(target=f) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert heard[0] == ("compute", True, None)
        assert heard[1:] == [("joined", True, None)] * 2
