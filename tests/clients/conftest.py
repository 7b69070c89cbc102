"""Fixtures for clients of each kind on nodes of each kind."""

from __future__ import annotations

import contextlib

import pytest

from clients.signing import NEW
from clients.sources import BACKENDS, Source, urls_of
from shardcache.testing.driving import MODES, make_client

SHARED = ["memcached", "redis", "pymemcache"]  # kinds of nodes that processes share


@pytest.fixture(params=BACKENDS)
def nodes(request):
    """Return the URLs of three nodes."""
    if request.param == "memory":
        return urls_of(request.param, (), ())
    memcached = request.getfixturevalue("memcached_servers")
    if request.param in {"memcached", "pymemcache"}:
        return urls_of(request.param, memcached, ())
    return urls_of(request.param, memcached, request.getfixturevalue("redis_servers"))


@pytest.fixture(params=MODES)
def source(request, nodes):
    """Return a source whose client is of each kind, on nodes of each kind."""
    client = make_client(request.param, nodes, timeout=5.0)
    yield Source(client)
    client.close()


@pytest.fixture(params=SHARED)
def urls(request):
    """Return the URLs of three nodes that processes share."""
    return _urls(request, request.param)


@pytest.fixture(params=["memory", *SHARED])
def all_urls(request):
    """Return the URLs of three nodes of any kind."""
    if request.param == "memory":
        return "memory://a,b,c"
    return _urls(request, request.param)


@pytest.fixture(params=["memory", *SHARED])
def url(request):
    """Return the URL of an empty node of each kind."""
    return "memory://a" if request.param == "memory" else _urls(request, request.param)[0]


@pytest.fixture
def make_signed(mode, url):
    """Return a function that makes a client with a secret, closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(secret=NEW, **options):
            client = make_client(mode, url, secret=secret, timeout=10, **options)
            stack.callback(client.close)
            return client

        yield make


def _urls(request, kind):
    server = "redis" if kind == "redis" else "memcached"
    urls = [server.url for server in request.getfixturevalue(f"{server}_servers")]
    if kind == "pymemcache":
        return [url.replace("memcached://", "pymemcache://") for url in urls]
    return urls
