"""A flush empties one node, or all."""

from __future__ import annotations

import pytest

from shardcache import AsyncClient, Client, NodeUnavailableError, PartialFailureError, TopologyError
from shardcache.testing.driving import MODES, make_client

KEYS = [f"key:{number}" for number in range(60)]


def test_one_node_is_flushed_and_no_other(memcached_servers, redis_servers):
    """On memcached and on Redis; the keys of all other nodes stay."""
    urls = [memcached_servers[0].url, memcached_servers[1].url, redis_servers[0].url]
    with Client(urls) as client:
        for url in urls:
            name = url.partition("://")[2]
            client.set_many(dict.fromkeys(KEYS, 1), ttl=60)
            assert client.flush_node(name) is True
            left = {key for key in KEYS if client.node_for(key).name != name}
            assert set(client.get_many(KEYS)) == left
            assert 0 < len(left) < len(KEYS)


async def test_the_asyncio_client_does_the_same():
    """An unknown name is refused, and the known ones are named."""
    async with AsyncClient("memory://a,b") as client:
        await client.set_many(dict.fromkeys(KEYS, 1), ttl=60)
        assert await client.flush_node("a") is True
        assert {client.node_for(key).name for key in await client.get_many(KEYS)} == {"b"}
        with pytest.raises(TopologyError, match="known: a, b"):
            await client.flush_node("z")


def test_a_node_that_is_down_is_not_flushed():
    """`False`, or its error where errors are raised."""
    with Client("memcached://127.0.0.1:1") as client:
        assert client.flush_node("127.0.0.1:1") is False
    with (
        Client("memcached://127.0.0.1:1", on_error="raise") as client,
        pytest.raises(NodeUnavailableError),
    ):
        client.flush_node("127.0.0.1:1")


@pytest.mark.parametrize("mode", MODES)
def test_nodes_that_were_not_flushed_are_named(mode):
    """The error says how many of how many."""
    urls = ["memory://a", "memory://b", "memcached://127.0.0.1:1"]
    client = make_client(mode, urls, on_error="raise")
    with pytest.raises(PartialFailureError, match="1 of 3 nodes failed") as caught:
        client.flush_all()
    assert set(caught.value.failed) == {"127.0.0.1:1"}
    assert "refused" in str(caught.value)
    client.close()
