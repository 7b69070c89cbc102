"""The classic protocol tells no expiry: what a client can do without, and what it says otherwise."""

from __future__ import annotations

import pytest

from shardcache import KEEP, UnsupportedError
from shardcache.testing.driving import make_client


@pytest.fixture(params=[None, "at least sixteen bytes"], ids=["plain", "signed"])
def client(request, mode, memcached_servers):
    """Return a client with a secret, and one without."""
    url = memcached_servers[0].url.replace("memcached://", "pymemcache://")
    client = make_client(mode, url, secret=request.param, timeout=5)
    yield client
    client.close()


def keep(client):
    """Replace a value, and keep its expiry."""
    _, token = client.gets("k")
    client.cas("k", "new", token, ttl=KEEP)


@pytest.mark.parametrize(
    "call", [lambda client: client.ttl("k"), keep, lambda client: client.decr("n", 9, floor=None)]
)
def test_what_needs_an_expiry_names_the_way_out(client, call):
    """Whatever `on_error` is; the value stays, and the node is not at fault."""
    client.set("k", "value", ttl=60)
    client.set("n", 5)
    for _ in range(5):
        with pytest.raises(UnsupportedError, match="on use memcached://"):
            call(client)
    assert client.get_many(["k", "n"]) == {"k": "value", "n": 5}
    assert client.ejected == ()


def test_the_rest_is_done(client):
    """A look for a value reads it, and the server counts up from zero on."""
    assert client.exists("k") is False
    client.set("k", "value")
    assert client.exists("k") is True
    assert client.incr("n", initial=-2, floor=None) == -2
    client.set("n", 0)
    assert client.incr("n", 7, floor=None) == 7
