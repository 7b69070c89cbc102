"""What is long is sent over TLS so that a server sees all of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from shardcache import AsyncClient
from shardcache.testing.driving import make_client

PATIENCE = 30.0  # seconds; a server that overlooks a command answers it never


@pytest.fixture(params=["memcached", "redis"])
def url(request, make_memcached, make_redis, tls):
    """Return the URL of a server of each kind in turn."""
    server = (make_memcached if request.param == "memcached" else make_redis)(tls=tls)
    return f"{server.url}?ssl_ca_certs={tls.authority}"


@pytest.mark.parametrize(("number", "size"), [(17, 1000), (300, 1000), (1, 20_000), (5, 40_000)])
def test_a_batch_of_any_size_is_stored_at_once(mode, url, number, size):
    """Whatever is left of the last record: the call ends with its last reply, not with its timeout."""
    client = make_client(mode, url, on_error="raise", timeout=PATIENCE)
    items = {f"k{place}": "v" * size for place in range(number)}
    began = time.monotonic()
    assert client.set_many(items) == []
    assert client.get_many(items) == items
    assert client.delete_many(items) == number
    assert time.monotonic() - began < PATIENCE / 2
    client.close()


async def test_calls_of_one_turn_are_all_answered(url):
    """They leave in one write, whose end may be that of any command."""
    async with AsyncClient(url, on_error="raise", timeout=PATIENCE) as client:
        began = time.monotonic()
        stores = [client.set(f"k{number}", "v" * 1000) for number in range(50)]
        assert await asyncio.gather(*stores, client.incr("n", initial=7)) == [*[True] * 50, 7]
        large = [client.set(f"k{number}", "v" * 100_000) for number in range(50)]
        assert await asyncio.gather(*large, client.incr("n")) == [*[True] * 50, 8]
        assert time.monotonic() - began < PATIENCE / 2
