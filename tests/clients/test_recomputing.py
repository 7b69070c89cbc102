"""Who recomputes a value, who shares it, and what is stored: on every kind of node, in both worlds."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shardcache import AsyncClient, Client
from shardcache.testing.waiting import eventually

LONG = 30.0
LOCKS = [False, "shard", True]
BACKENDS = ["memcached", "redis", "pymemcache"]


@pytest.fixture(params=BACKENDS)
def urls(request):
    """Give the URLs of three nodes that processes share."""
    return _urls(request, request.param)


@pytest.fixture(params=["memory", *BACKENDS])
def all_urls(request):
    """Give the URLs of three nodes of any kind."""
    if request.param == "memory":
        return "memory://a,b,c"
    return _urls(request, request.param)


def _urls(request, kind):
    server = "redis" if kind == "redis" else "memcached"
    urls = [server.url for server in request.getfixturevalue(f"{server}_servers")]
    if kind == "pymemcache":
        return [url.replace("memcached://", "pymemcache://") for url in urls]
    return urls


def in_thread(call):
    """Begin a call in a thread; return the thread and where its result will be."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("way", ["invalidate", "invalidate_tag"])
class TestVoidFlights:
    """Who calls after an invalidation has returned in another process gets no older value."""

    def test_threads(self, urls, lock, way):
        """The flight of one's own process is not joined then."""
        source, go, begun = ["old"], threading.Event(), threading.Event()

        def cached(client):
            @client.cached(ttl=60, lock=lock, tags=["t"], namespace="f")
            def f():
                value = source[0]
                if value == "old":
                    begun.set()
                    go.wait(LONG)
                return value

            return f

        with Client(urls, timeout=2.0) as here, Client(urls, timeout=2.0) as there:
            f, g = cached(here), cached(there)
            thread, results = in_thread(g)
            assert begun.wait(LONG)
            source[0] = "new"
            f.invalidate() if way == "invalidate" else f.invalidate_tag("t")
            assert g() == "new"
            go.set()
            thread.join(LONG)
            assert results == ["old"]
            assert g.get() == "new"

    async def test_tasks(self, urls, lock, way):
        """The same for the tasks of a loop."""
        source, go, begun = ["old"], asyncio.Event(), asyncio.Event()

        def cached(client):
            @client.cached(ttl=60, lock=lock, tags=["t"], namespace="f")
            async def f():
                value = source[0]
                if value == "old":
                    begun.set()
                    await go.wait()
                return value

            return f

        async with AsyncClient(urls, timeout=2.0) as here, AsyncClient(urls, timeout=2.0) as there:
            f, g = cached(here), cached(there)
            leader = asyncio.create_task(g())
            await begun.wait()
            source[0] = "new"
            await (f.invalidate() if way == "invalidate" else f.invalidate_tag("t"))
            assert await g() == "new"
            go.set()
            assert await leader == "old"
            assert await g.get() == "new"


def test_threads_that_come_later_join(urls):
    """Whoever finds the stub of its leader joins, also on memcached, whose stubs have no names."""
    go, calls = threading.Event(), []
    with Client(urls, timeout=2.0) as client:

        @client.cached(ttl=60, wait=LONG)
        def f():
            calls.append(1)
            go.wait(LONG)
            return len(calls)

        threads = []
        for _ in range(5):
            threads.append(in_thread(f)[0])
            eventually(lambda: calls, within=LONG)
        eventually(lambda: f.cache_info().misses == 5, within=LONG)
        go.set()
        for thread in threads:
            thread.join(LONG)
        assert len(calls) == 1


class TestWhatIsNotShared:
    """What is neither kept nor copied belongs to the caller whose call made it."""

    @pytest.mark.parametrize("lock", LOCKS)
    def test_threads(self, all_urls, lock):
        """Each has a generator of its own, of which nobody else has read."""
        barrier, calls = threading.Barrier(4), []
        with Client(all_urls, timeout=2.0) as client:

            @client.cached(ttl=60, lock=lock, condition=lambda rows: isinstance(rows, dict))
            def rows():
                calls.append(1)
                if len(calls) == 1:  # the others wait for this call
                    eventually(lambda: rows.cache_info().misses == 4, within=LONG)
                return (number for number in range(3))

            def read():
                barrier.wait(LONG)
                return list(rows())

            started = [in_thread(read) for _ in range(4)]
            for thread, _ in started:
                thread.join(LONG)
            assert [results for _, results in started] == [[[0, 1, 2]]] * 4
            assert len(calls) == 4

    @pytest.mark.parametrize("lock", LOCKS)
    async def test_tasks(self, all_urls, lock):
        """Those who have waited compute side by side, not one after another."""
        busy = [0, 0]
        async with AsyncClient(all_urls, timeout=2.0) as client:

            @client.cached(ttl=60, lock=lock, condition=lambda rows: isinstance(rows, dict))
            async def rows():
                busy[0] += 1
                busy[1] = max(busy)
                await asyncio.sleep(0.2)
                busy[0] -= 1
                return (number for number in range(3))

            results = await asyncio.gather(*(rows() for _ in range(4)))
            assert [list(each) for each in results] == [[0, 1, 2]] * 4
            assert busy == [0, 3]

    async def test_what_can_be_copied_is(self, all_urls):
        """What `condition` refuses is returned to all who wait for it, to each a copy."""
        calls = []
        async with AsyncClient(all_urls, timeout=2.0) as client:

            @client.cached(ttl=60, condition=lambda _: False)
            async def f():
                calls.append(1)
                await asyncio.sleep(0.1)
                return [1]

            results = await asyncio.gather(*(f() for _ in range(4)))
            assert results == [[1]] * 4
            assert len({id(each) for each in results}) == 4
            assert len(calls) == 1
