"""A node that fails is a miss where that is harmless, and an error where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from shardcache_flask import ShardCache

from shardcache import NodeError
from shardcache.testing.servers import Server
from shardcache.testing.waiting import eventually

pytestmark = pytest.mark.servers

KEYS = [f"key-{number}" for number in range(40)]


@pytest.fixture
def cache(urls: Sequence[str]) -> Iterator[ShardCache]:
    """Return a cache of two nodes in which each key has a value."""
    cache = ShardCache(urls, secret="a secret", timeout=0.25)
    assert cache.set_many(dict.fromkeys(KEYS, 1)) == KEYS
    yield cache
    cache.close()


@pytest.fixture
def lost(cache: ShardCache, servers: Sequence[Server]) -> list[str]:
    """Return the keys of a node that is killed now."""
    servers[0].kill()
    lost = [key for key in KEYS if cache.client.node_for(key).url == servers[0].url]
    assert 0 < len(lost) < len(KEYS)
    return lost


def test_reads_and_writes_miss(cache: ShardCache, lost: list[str]):
    """A page is served without its cache."""
    assert cache.get(lost[0]) is None
    assert not cache.has(lost[0])
    assert not cache.set(lost[0], 2)
    assert not cache.delete(lost[0])
    assert cache.get_many(*KEYS) == [None if key in lost else 1 for key in KEYS]
    assert cache.set_many(dict.fromkeys(KEYS, 2)) == [key for key in KEYS if key not in lost]


def test_counters_and_add_raise(cache: ShardCache, lost: list[str]):
    """A rate limiter must not begin again, and a mark must not seem to be there."""
    for call in (cache.inc, cache.dec, lambda key: cache.add(key, 1)):
        with pytest.raises(NodeError):
            call(lost[0])


def test_delete_many_tells_which(cache: ShardCache, lost: list[str]):
    """Or raises, as cachelib lets an application choose."""
    assert cache.delete_many(*KEYS) == [key for key in KEYS if key not in lost]
    cache.ignore_delete_many_errors = False
    with pytest.raises(RuntimeError, match=rf"{len(lost)} of {len(KEYS)} keys failed"):
        cache.delete_many(*KEYS)


def test_a_node_comes_back(cache: ShardCache, lost: list[str], servers: Sequence[Server]):
    """Nothing has to be restarted."""
    with pytest.raises(NodeError):
        cache.inc(lost[0])
    servers[0].restart()
    eventually(lambda: cache.set(lost[0], 3), within=20)
    assert cache.get(lost[0]) == 3
