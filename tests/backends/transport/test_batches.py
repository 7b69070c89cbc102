"""Batches of any size pass, for both sides read while they write."""

from __future__ import annotations

import pytest

from shardcache.testing.driving import make_client


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_hundred_megabytes_over_three_nodes(mode, kind, make_memcached, make_redis):
    """10,000 keys of 10 KiB go out and come back whole, without a deadlock."""
    make = (lambda: make_memcached("-m", "256")) if kind == "memcached" else make_redis
    client = make_client(mode, [make().url for _ in range(3)], on_error="raise", timeout=60)
    items = {f"key:{number:05d}": bytes([number % 256]) * 10_240 for number in range(10_000)}
    assert client.set_many(items) == []
    found = client.get_many(items)
    assert len(found) == len(items)
    assert all(found[key] == value for key, value in items.items())
    assert client.delete_many(items) == len(items)
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_million_small_keys_on_one_node(mode, kind, make_memcached, make_redis):
    """One batch asks for all of them; the hundred that are there are found."""
    server = make_memcached("-m", "256") if kind == "memcached" else make_redis()
    client = make_client(mode, server.url, on_error="raise", timeout=110)
    there = {f"k{number}": number for number in range(0, 1_000_000, 10_000)}
    assert client.set_many(there) == []
    assert client.get_many(f"k{number}" for number in range(1_000_000)) == there
    client.close()
