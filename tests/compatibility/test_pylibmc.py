"""Keys that the real pylibmc wrote are found where they are, and the other way round.

Collected where pylibmc has wheels (Python 3.11); the golden vectors of both its modes, and a real
nutcracker, are asked on every version.
"""

from __future__ import annotations

import pylibmc
import pytest

from shardcache.testing.driving import MODES, make_client

KEYS = [f"user:{number}:profile" for number in range(400)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("behaviors", "strategy"),
    [({"ketama": True}, "ketama:profile=pylibmc"), ({"ketama_weighted": True}, "ketama")],
)
def test_pylibmc_and_we_place_alike(mode, memcached_servers, behaviors, strategy):
    """Both of its ketama modes place keys where our profiles look."""
    hosts = [f"{server.host}:{server.port}" for server in memcached_servers]
    theirs = pylibmc.Client(hosts, behaviors=behaviors)
    urls = [server.url for server in memcached_servers]
    client = make_client(mode, urls, strategy=strategy, on_error="raise", timeout=10)
    values = dict(zip(KEYS, ["text é", b"\x00bytes", 42] * 200, strict=False))
    theirs.set_multi(values)
    assert client.get_many(KEYS) == values
    client.set_many(dict.fromkeys(KEYS, "ours"))
    assert theirs.get_multi(KEYS) == dict.fromkeys(KEYS, "ours")
    client.close()
