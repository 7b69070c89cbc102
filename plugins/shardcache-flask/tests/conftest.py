"""The servers of these tests: two memcached nodes, or two Redis nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from shardcache.testing.servers import Server, start_memcached, start_redis

STARTS = {"memcached": start_memcached, "redis": start_redis}


@pytest.fixture(params=STARTS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of server in turn."""
    return request.param


@pytest.fixture
def start(kind: str) -> Iterator[Callable[[], Server]]:
    """Yield what starts a server; stop what it started at the end."""
    with ExitStack() as stack:

        def started() -> Server:
            server = STARTS[kind]()
            stack.callback(server.stop)
            return server

        yield started


@pytest.fixture
def servers(start: Callable[[], Server]) -> Sequence[Server]:
    """Return two servers of each kind in turn."""
    return [start(), start()]


@pytest.fixture
def urls(servers: Sequence[Server]) -> list[str]:
    """Return the URLs of two nodes of each kind in turn."""
    return [server.url for server in servers]
