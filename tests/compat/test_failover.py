"""A dead server's keys are cacheable again, without the old values that pymemcache reads afterwards."""

from __future__ import annotations

import pytest
from pymemcache.serde import pickle_serde

from shardcache import ConfigurationError, Gutter
from shardcache.compat.pymemcache import HashClient
from shardcache.testing.waiting import eventually

KEYS = [f"k{number}" for number in range(60)]
SOON = 15.0  # seconds


@pytest.fixture(params=["next", "gutter"])
def cluster(request, make_memcached):
    """Yield a client with a failover, one of whose three servers is dead, and the keys of that one."""
    servers, spare = [make_memcached() for _ in range(3)], make_memcached()
    hosts = [(server.host, server.port) for server in servers]
    client = HashClient(
        hosts,
        serde=pickle_serde,
        ignore_exc=True,
        default_noreply=False,
        timeout=2,
        failover="next" if request.param == "next" else Gutter(spare.url),
    )
    dead = f"{servers[0].host}:{servers[0].port}"
    mine = [key for key in KEYS if client._client.node_for(key).name == dead]
    client.set_many(dict.fromkeys(KEYS, "old"))
    servers[0].kill()
    while not client._client.ejected:
        client.get(mine[0])
    yield client, servers[0], mine
    client.close()


def test_its_keys_are_stored_and_found(cluster):
    """By one call, by batches, for text and for bytes keys, and with a long name."""
    client, _, mine = cluster
    one, two, *_ = mine
    assert client.get(one) is None
    assert client.set(one, {"a": 1}) is True
    assert client.get(one) == {"a": 1}
    assert client.set_many({two: 2, b"bytes": 3, "x" * 250: 4}) == []
    found = client.get_many([one, two, b"bytes", "x" * 250])
    assert found == {one: {"a": 1}, two: 2, b"bytes": 3, "x" * 250: 4}
    assert client.add(one, "other") is False
    assert client.delete(one) is True
    assert client.get(one) is None


@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_second_try_finds_the_same_server(make_memcached, kind):
    """Of a call whose failure ejects the server: what it stores is read there afterwards."""
    servers = [make_memcached() for _ in range(3)]
    client = HashClient(
        [(each.host, each.port) for each in servers],
        ignore_exc=True,
        default_noreply=False,
        timeout=2,
        failover="next",
        key_prefix="shop:",
    )
    dead = client._client.nodes[0]

    def stand_in(key):
        return next(node for node in client._client.nodes_for(key, 2) if node != dead)

    keys = [kind(f"k{n}") for n in range(200)]
    mine = [key for key in keys if client._client.node_for(key) == dead]
    name = {key: bytes(client._client._cluster.home(key)[0]) for key in mine}
    # One whose name would be hashed to another server than the key is.
    key = next(key for key in mine if stand_in(key) != stand_in(name[key]))
    servers[0].kill()
    assert not client._client.ejected
    assert client.set(key, b"new") is True
    assert client._client.ejected == (dead,)
    assert client.get(key) == b"new"
    client.close()


def test_a_cas_and_what_rests_on_it_are_refused(cluster):
    """The token of a stand-in matches nothing, before the server is back and after."""
    client, server, mine = cluster
    key = mine[0]
    client.set(key, "v")
    for value, token in (client.gets(key), client.gets_many([key])[key]):
        assert (value, token) == ("v", b"0")
        assert client.cas(key, "w", token) is False
    assert client.append(key, "x") is False
    server.restart()
    eventually(lambda: not client._client.ejected, within=SOON)
    assert client.get(key) is None
    client.set(key, "newer")
    assert client.cas(key, "w", token) is False
    assert client.get(key) == "newer"


def test_no_old_value_is_read_when_it_is_back(make_memcached):
    """Pymemcache reads what such a server had: here it is deleted there first."""
    servers = [make_memcached() for _ in range(2)]
    client = HashClient(
        [(each.host, each.port) for each in servers], ignore_exc=True, timeout=0.5, failover="next"
    )
    dead = f"{servers[0].host}:{servers[0].port}"
    one, two, three, *_ = [key for key in KEYS if client._client.node_for(key).name == dead]
    client.set_many(dict.fromkeys((one, two, three), b"old"))
    servers[0].pause()
    while not client._client.ejected:
        client.get(one)
    client.set(one, b"new")
    client.delete(two)
    servers[0].resume()
    eventually(lambda: not client._client.ejected, within=SOON)
    assert client.get_many([one, two, three]) == {three: b"old"}
    client.close()


def test_a_refusal_of_a_spare_server_is_counted_there(make_memcached):
    """It is no member of the others; with `noreply` it is logged, and raises nothing."""
    first, spare = make_memcached(), make_memcached()
    gutter = Gutter(f"{spare.url}?max_value_bytes=1000")
    client = HashClient([(first.host, first.port)], timeout=2, failover=gutter)
    first.kill()
    while not client._client.ejected:
        client.get("k")
    assert client.set("k", b"x" * 5000) is False
    assert client.counters()[f"gutter {spare.host}:{spare.port}"]["swallowed_errors"] == 1
    client.close()


def test_what_it_cannot_be_is_refused():
    """With the name of the parameter."""
    with pytest.raises(ConfigurationError, match="failover: "):
        HashClient(["127.0.0.1:1"], failover="rehash")
