"""Servers, and caches of Django over them, called through the sync and through the `a…` methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import override_settings
from shardcache_django import ShardCache, clients

from shardcache.testing.servers import Server, start_memcached, start_redis

if not settings.configured:  # once for all tests of one run
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    django.setup()

BACKEND = "shardcache_django.ShardCache"
PATIENT = 10.0  # seconds of a call: how busy this machine is must not decide


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Sequence[Server]]]:
    """Yield two servers of each kind, for all tests."""
    with ExitStack() as stack:

        def start(make: Callable[[], Server]) -> Server:
            server = make()
            stack.callback(server.stop)
            return server

        yield {
            "memcached": [start(start_memcached) for _ in range(2)],
            "redis": [start(start_redis) for _ in range(2)],
        }


@pytest.fixture
def memcacheds(_servers: dict[str, Sequence[Server]]) -> Sequence[Server]:
    """Return two memcached servers, empty."""
    for server in _servers["memcached"]:
        server.ask(b"flush_all\r\n", b"OK\r\n")
    return _servers["memcached"]


@pytest.fixture
def redises(_servers: dict[str, Sequence[Server]]) -> Sequence[Server]:
    """Return two Redis servers, empty."""
    for server in _servers["redis"]:
        server.ask(b"FLUSHALL\r\n", b"+OK\r\n")
    return _servers["redis"]


@pytest.fixture
def own_memcacheds() -> Iterator[Sequence[Server]]:
    """Yield two memcached servers of this test alone, to be killed at will."""
    with ExitStack() as stack:
        servers = [start_memcached() for _ in range(2)]
        for server in servers:
            stack.callback(server.stop)
        yield servers


@pytest.fixture(params=["memcached", "redis", "mixed"])
def urls(
    request: pytest.FixtureRequest, memcacheds: Sequence[Server], redises: Sequence[Server]
) -> list[str]:
    """Return the URLs of two empty servers, of each kind and of both in turn."""
    chosen = {"memcached": memcacheds, "redis": redises, "mixed": [memcacheds[0], redises[0]]}
    return [server.url for server in chosen[request.param]]


@pytest.fixture(autouse=True)
def _no_clients_left() -> Iterator[None]:
    """Close the clients that a test made: a process keeps them, and a test run is many programs."""
    yield
    while clients._clients:
        _, made = clients._clients.popitem()
        made.blocking.close()
        asyncio.run(made.asyncio.aclose())


@pytest.fixture
def use() -> Iterator[Callable[..., ShardCache]]:
    """Yield a function that makes Django use a cache, and returns it; options are those of `CACHES`."""
    with ExitStack() as stack:
        # Left last, it restores the settings, also when a test calls `make` inside an override.
        stack.enter_context(override_settings())

        def make(location: object, /, **params: Any) -> ShardCache:
            options = {"timeout": PATIENT, **params.pop("OPTIONS", {})}
            default = {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": options, **params}
            stack.enter_context(override_settings(CACHES={"default": default}))
            return caches["default"]

        yield make


class Awaited:
    """A cache whose `a…` methods are called like the sync ones, each on a new event loop."""

    def __init__(self, cache: ShardCache) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.cache, f"a{name}")
        return lambda *args, **kwargs: asyncio.run(call(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Callable[[ShardCache], Any]:
    """Return what turns a cache into one whose calls take the sync or the `a…` methods."""
    return Awaited if request.param == "async" else lambda cache: cache


@pytest.fixture
def cache(use: Callable[..., ShardCache], urls: list[str], face: Callable[..., Any]) -> Any:
    """Return a cache over two servers of each kind, through both kinds of methods."""
    return face(use(urls))
