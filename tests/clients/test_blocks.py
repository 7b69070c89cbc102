"""`shardcache.bypass` and `shardcache.refresh` around the calls of both clients."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import shardcache
from shardcache import AsyncClient, Client
from shardcache.testing.driving import MODES, make_client

THREADS = 40


def test_bypass(source):
    """The function is called, and nothing is read or stored; calls that name the cache are as ever."""
    f = source.cached(tags=["t"])
    with shardcache.bypass():
        assert [f(1), f(1)] == ["made"] * 2
        assert f.get(1) is None
        assert source.client.get_or_set("k", lambda: 7, ttl=60) == 7
        assert source.client.get("k") is None
        assert source.client.set("k", 8) is True
        assert source.client.get_or_set("k", lambda: 7, ttl=60) == 7
    assert source.calls == [1, 1]
    assert f.cache_info().recomputes == 0
    assert source.client.get_or_set("k", lambda: 7, ttl=60) == 8
    assert [f(1), f(1)] == ["made"] * 2
    assert source.calls == [1, 1, 1]


def test_refresh(source):
    """Each value is recomputed once, and stored."""
    f = source.cached(tags=["t"])
    assert f(1) == "made"
    source.client.set("k", 7)
    source.result = "made again"
    with shardcache.refresh():
        assert [f(1), f(1), f(2)] == ["made again"] * 3
        assert source.client.get_or_set("k", lambda: 8, ttl=60) == 8
    assert source.calls == [1, 1, 2]
    assert [f.get(1), source.client.get("k")] == ["made again", 8]
    assert (f.cache_info().hits, f.cache_info().misses, f.cache_info().recomputes) == (1, 1, 3)


def test_a_bypassed_call_needs_no_key():
    """As with `f.bypass`; and `StopIteration` reaches the caller."""
    with Client("memory://a") as client:

        @client.cached(ttl=60, namespace="f")
        def f(argument):
            if argument is None:
                raise StopIteration
            return argument

        argument = object()
        with shardcache.bypass():
            assert f(argument) is argument
            with pytest.raises(StopIteration):
                f(None)


@pytest.mark.parametrize("mode", MODES)
def test_functions_that_a_function_calls(mode):
    """They are refreshed with it, each value once."""
    client = make_client(mode, "memory://a")
    calls = []

    if mode == "blocking":

        @client.cached(ttl=60, namespace="f")
        def fibonacci(number):
            calls.append(number)
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        call = fibonacci
    else:

        @client.cached(ttl=60, namespace="f")
        async def fibonacci(number):
            calls.append(number)
            return (
                number if number < 2 else await fibonacci(number - 1) + await fibonacci(number - 2)
            )

        def call(number):
            return client.loop.run_until_complete(fibonacci(number))

    assert call(30) == 832040
    calls.clear()
    with shardcache.refresh():
        assert call(30) == 832040
    assert sorted(calls) == list(range(31))
    client.close()


@pytest.mark.slow
def test_threads_that_refresh_at_once_share_a_recompute(all_urls):
    """Every thread is in a block that it has entered; other threads are in none."""
    calls, began = [], threading.Barrier(THREADS)
    with Client(all_urls, timeout=5.0) as client:

        @client.cached(ttl=60, namespace="f", wait=30)
        def f():
            calls.append(1)
            time.sleep(0.5)
            return len(calls)

        assert f() == 1
        results = []

        def request():
            with shardcache.refresh():
                began.wait(30)
                results.append(f())

        threads = [threading.Thread(target=request) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(results) == {2}
        assert f.cache_info().coalesced == THREADS - 1
        assert f() == 2


async def test_tasks_that_refresh_at_once_share_a_recompute(all_urls):
    """A block holds in the tasks that are started in it, and in no others."""
    calls = []
    async with AsyncClient(all_urls, timeout=5.0) as client:

        @client.cached(ttl=60, namespace="f", wait=30)
        async def f():
            calls.append(1)
            await asyncio.sleep(0.2)
            return len(calls)

        async def request():
            with shardcache.refresh():
                return await asyncio.create_task(f())

        assert await f() == 1
        assert await asyncio.gather(*(request() for _ in range(200))) == [2] * 200
        assert await f() == 2


def test_a_block_is_no_decorator():
    """On an `async def` it would end before the function begins."""
    with pytest.raises(TypeError, match="not callable"):
        shardcache.bypass()(test_a_block_is_no_decorator)
