"""Recomputes that outlive their callers, and the client that ends them."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardcache import AsyncClient, Client


async def test_impatient_callers_get_a_value(all_urls):
    """The first call's work is that of the second."""
    calls = []
    async with AsyncClient(all_urls, timeout=5.0) as client:

        @client.cached(ttl=60, namespace="f", on_cancel="finish", wait=30)
        async def slow():
            calls.append(1)
            await asyncio.sleep(0.5)
            return len(calls)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(), 0.2)
        assert await asyncio.wait_for(slow(), 30) == 1
        assert await slow() == 1
        assert slow.cache_info().orphaned == 1


async def test_closing_the_client_ends_them(all_urls):
    """At once, and with nothing left on the loop."""
    ended = []
    client = AsyncClient(all_urls, timeout=5.0)
    before = asyncio.all_tasks()

    @client.cached(ttl=60, namespace="f", on_cancel="finish")
    async def hung():
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(1)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hung(), 0.2)
    assert ended == []
    began = time.monotonic()
    await client.aclose()
    assert ended == [1]
    assert time.monotonic() - began < 5
    assert asyncio.all_tasks() == before


def test_threads_take_the_option():
    """A function may move from one client to the other."""
    with Client("memory://a") as client:
        f = client.cached(ttl=60, namespace="f", on_cancel="finish")(lambda: 1)
        assert (f(), f(), f.cache_info().orphaned) == (1, 1, 0)
