"""Servers, and caches of Django over them, called through the sync and through the `a…` methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import override_settings
from shardcache_django import ShardCache, clients

from shardcache.testing.clusters import ServerCluster
from shardcache.testing.pytest_plugin import *  # noqa: F403 - fixtures

if not settings.configured:  # once for all tests of one run
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    django.setup()

BACKEND = "shardcache_django.ShardCache"
PATIENT = 10.0  # seconds of a call: how busy this machine is must not decide


@pytest.fixture(scope="session")
def server_count() -> int:
    """Return how many servers of each kind there are."""
    return 2


@pytest.fixture(params=["memcached", "redis", "mixed"])
def urls(
    request: pytest.FixtureRequest, memcached_servers: ServerCluster, redis_servers: ServerCluster
) -> list[str]:
    """Return the URLs of two empty servers, of each kind and of both in turn."""
    memcached, redis = memcached_servers.urls, redis_servers.urls
    return {"memcached": memcached, "redis": redis, "mixed": [memcached[0], redis[0]]}[
        request.param
    ]


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
