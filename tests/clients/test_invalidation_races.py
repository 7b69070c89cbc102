"""A value is invalidated during its recompute: later calls never get the old one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from shardcache import AsyncClient, Client
from shardcache.io.asyncio import AsyncIO
from shardcache.io.blocking import BlockingIO

WAYS = ["invalidate_tag", "invalidate", "invalidate_all", "set", "refresh"]
MAKINGS = ["miss", "background", "inline", "early"]
TERMS = {
    "miss": {"ttl": 60},
    "background": {"ttl": 0.05, "jitter": 0.0, "stale": 600, "refresh": "background"},
    "inline": {"ttl": 0.05, "jitter": 0.0, "stale": 600, "refresh": "inline"},
    "early": {"ttl": 1.0, "jitter": 0.0, "early": 1000.0, "refresh": "background"},
}
TRIES = 3  # memcached's tick may take a value between the read and the claim of its refresh
REST = {"miss": 0.0, "background": 0.1, "inline": 0.1, "early": 0.55}  # until it is refreshed


@pytest.fixture(params=["memory", "memcached", "redis"])
def urls(request):
    """Return the URLs of three nodes."""
    if request.param == "memory":
        return ["memory://a", "memory://b", "memory://c"]
    servers = request.getfixturevalue(f"{request.param}_servers")
    return [server.url for server in servers]


@pytest.fixture(autouse=True)
def _early(monkeypatch):
    """Have a value refreshed as early as it may be."""
    for port in (BlockingIO, AsyncIO):
        monkeypatch.setattr(port, "random", staticmethod(lambda: 1 - 1e-12))


class Source:
    """A function whose second making is held up until it is let go."""

    def __init__(self, making):
        self.version = 1
        self.holds = making == "miss"
        self.held = False

    def is_held(self):
        """Return whether this is the recompute that is held up."""
        if not self.holds or self.held:
            return False
        self.held = True
        return True


@pytest.mark.slow
@pytest.mark.parametrize("making", MAKINGS)
@pytest.mark.parametrize("way", WAYS)
def test_threads_get_no_value_from_before_an_invalidation(urls, way, making):
    """With the blocking client."""
    source, began, end = Source(making), threading.Event(), threading.Event()
    with Client(urls, timeout=5.0) as client:

        @client.cached(
            namespace="n", tags=["t"] if way == "invalidate_tag" else (), **TERMS[making]
        )
        def f():
            made = source.version
            time.sleep(0.01)  # what takes no time is not made early
            if source.is_held():
                began.set()
                end.wait(30)
            return made

        if making != "miss":
            assert f() == 1
            time.sleep(REST[making])
            source.holds = True
        for _ in range(TRIES):
            maker = threading.Thread(target=f)
            maker.start()
            if began.wait(10):
                break
        assert began.is_set()
        source.version = 2
        if way == "invalidate_tag":
            assert client.invalidate_tag("t") is True
        elif way == "set":
            assert f.set(2) is True
        else:
            getattr(f, way)()
        assert f() == 2
        end.set()
        maker.join(30)
        assert f() == 2


@pytest.mark.slow
@pytest.mark.parametrize("making", MAKINGS)
@pytest.mark.parametrize("way", WAYS)
async def test_tasks_get_no_value_from_before_an_invalidation(urls, way, making):
    """With the asyncio client."""
    source, began, end = Source(making), asyncio.Event(), asyncio.Event()
    async with AsyncClient(urls, timeout=5.0) as client:

        @client.cached(
            namespace="n", tags=["t"] if way == "invalidate_tag" else (), **TERMS[making]
        )
        async def f():
            made = source.version
            await asyncio.sleep(0.01)  # as above
            if source.is_held():
                began.set()
                await asyncio.wait_for(end.wait(), 30)
            return made

        if making != "miss":
            assert await f() == 1
            await asyncio.sleep(REST[making])
            source.holds = True
        for _ in range(TRIES):
            maker = asyncio.create_task(f())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(began.wait(), 10)
                break
        assert began.is_set()
        source.version = 2
        if way == "invalidate_tag":
            assert await client.invalidate_tag("t") is True
        elif way == "set":
            assert await f.set(2) is True
        else:
            await getattr(f, way)()
        assert await f() == 2
        end.set()
        await maker
        assert await f() == 2
