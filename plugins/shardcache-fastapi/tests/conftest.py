"""The nodes of these tests: in memory, and two servers of each kind that are started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from shardcache.testing.servers import Server, start_memcached, start_redis


def _pair(start: Callable[[], Server]) -> Iterator[list[str]]:
    servers = [start(), start()]
    try:
        yield [server.url for server in servers]
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="session")
def memcached_urls() -> Iterator[list[str]]:
    """Yield the URLs of two memcacheds."""
    yield from _pair(start_memcached)


@pytest.fixture(scope="session")
def redis_urls() -> Iterator[list[str]]:
    """Yield the URLs of two Redis servers."""
    yield from _pair(start_redis)


@pytest.fixture(params=["memory", "memcached", "redis"])
def urls(request: pytest.FixtureRequest) -> list[str]:
    """Return the URLs of each kind of nodes in turn."""
    if request.param == "memory":
        return ["memory://a", "memory://b"]
    return request.getfixturevalue(f"{request.param}_urls")
