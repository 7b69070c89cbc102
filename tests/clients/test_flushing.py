"""A flush empties one node, or all."""

from __future__ import annotations

import pytest

from shardcache import (
    AsyncClient,
    Client,
    Gutter,
    NodeUnavailableError,
    PartialFailureError,
    TopologyError,
)
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


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_is_shown_under_another_name_is_flushed_by_it(mode):
    """A spare one, and the old and next ones of a change; one that serves only locks never is."""
    client = make_client(
        mode,
        ["memory://a", "memory://b"],
        timeout=0.05,
        failover=Gutter(["memory://s", "memory://t"]),
        lock_nodes=["memory://l"],
    )
    client.set_many(dict.fromkeys(KEYS, 1), ttl=600)
    copied, *left = [key for key in KEYS if client.node_for(key).name == "b"]
    client.announce_nodes(["memory://a", "memory://c"])
    assert client.flush_node("next c") is client.flush_node("gutter s") is True
    assert len(client.get_many(KEYS)) == len(KEYS)
    client.set_nodes(["memory://a", "memory://c"], warm_for=60)
    assert client.get(copied) == 1
    assert client.flush_node("old b") is True
    assert client.get_many([copied, *left]) == {copied: 1}
    with pytest.raises(TopologyError, match="known: a, c, gutter s, gutter t, old b"):
        client.flush_node("lock l")
    client.close()


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
