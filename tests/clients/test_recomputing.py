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
    kind = "redis" if request.param == "redis" else "memcached"
    urls = [server.url for server in request.getfixturevalue(f"{kind}_servers")]
    if request.param == "pymemcache":
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
