"""Keys that other clients wrote are found where they are, and the other way round."""

from __future__ import annotations

import pytest
from pymemcache.client.base import Client as PlainClient
from pymemcache.client.hash import HashClient
from pymemcache.serde import PickleSerde

from shardcache.testing.driving import make_client

KEYS = [f"user:{number}:profile" for number in range(400)]


@pytest.fixture
def hosts(memcached_servers):
    """Return the addresses of three empty memcached nodes."""
    return [(server.host, server.port) for server in memcached_servers]


def ours(mode, hosts, strategy, scheme="memcached"):
    """Make our client of the same nodes."""
    urls = [f"{scheme}://{host}:{port}" for host, port in hosts]
    return make_client(mode, urls, strategy=strategy, on_error="raise", timeout=10)


@pytest.mark.parametrize("scheme", ["memcached", "pymemcache"])
def test_pymemcache_and_we_read_each_other(mode, hosts, scheme):
    """`HashClient` and we find each other's text, bytes and numbers in place."""
    theirs = HashClient(hosts, serde=PickleSerde(), default_noreply=False)
    client = ours(mode, hosts, "pymemcache", scheme)
    values = dict(zip(KEYS, ["text é", b"\x00bytes", 42] * 200, strict=False))
    theirs.set_many(values)
    assert client.get_many(KEYS) == values
    assert [client.get(key) for key in KEYS[:30]] == [values[key] for key in KEYS[:30]]
    client.set_many(values, ttl=60)
    assert theirs.get_many(KEYS) == values
    theirs.close()
    client.close()


@pytest.mark.parametrize("hash_name", ["fnv1a_64", "md5", "one_at_a_time", "murmur", "crc32"])
def test_twemproxy_and_we_place_alike(mode, hosts, make_nutcracker, hash_name):
    """We find what a real nutcracker placed, and it finds what we placed."""
    proxy = make_nutcracker(
        {
            "hash": hash_name,
            "distribution": "ketama",
            "timeout": 2000,
            "servers": [f"{host}:{port}:1" for host, port in hosts],
        }
    )
    client = ours(mode, hosts, f"ketama:profile=twemproxy,hash={hash_name}")
    through = PlainClient((proxy.host, proxy.port), default_noreply=False)
    for key in KEYS[:150]:
        through.set(key, key.encode())
    assert client.get_many(KEYS[:150]) == {key: key.encode() for key in KEYS[:150]}
    client.set_many(dict.fromkeys(KEYS[:150], "ours"))
    assert all(through.get(key) == b"ours" for key in KEYS[:150])
    through.close()
    client.close()


def test_a_proxy_is_asked_by_the_classic_protocol(mode, hosts, make_nutcracker):
    """Through `pymemcache://` a whole twemproxy pool is one node."""
    proxy = make_nutcracker(
        {
            "hash": "fnv1a_64",
            "distribution": "ketama",
            "timeout": 2000,
            "servers": [f"{host}:{port}:1" for host, port in hosts],
        }
    )
    url = f"pymemcache://{proxy.host}:{proxy.port}"
    client = make_client(mode, url, on_error="raise", timeout=10)
    items = {key: {"of": key} for key in KEYS}
    assert client.set_many(items) == []
    assert client.get_many(KEYS) == items
    assert client.incr("n", initial=1) == 1
    assert client.incr("n") == 2
    assert client.delete_many(KEYS) == len(KEYS)
    client.close()


def test_pickles_of_other_clients_are_read_only_when_told_to(mode, hosts):
    """Another client's pickle is a miss, unless the codec trusts such."""
    theirs = HashClient(hosts, serde=PickleSerde(), default_noreply=False)
    theirs.set("k", {"a": (1, 2)})
    urls = [f"memcached://{host}:{port}" for host, port in hosts]
    for codec in ("msgpack", "pickle", "json", "raw"):
        for reading, expected in ((False, None), (True, {"a": (1, 2)})):
            client = make_client(
                mode,
                urls,
                strategy="pymemcache",
                codec=codec,
                secret="sixteen bytes or more",
                read_unsigned=reading,
                timeout=10,
            )
            assert client.get("k") == expected
            client.close()
    theirs.close()
