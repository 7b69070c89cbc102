"""Fixtures of pytest: real memcached and Redis servers that a test may stop, kill and start again.

One line in the `conftest.py` of your tests, or in a test module, makes them known::

    pytest_plugins = ["shardcache.testing.pytest_plugin"]

| fixture | what it is |
|---|---|
| `memcached_cluster`, `redis_cluster` | three servers for this test alone, to be stopped and killed at will |
| `memcached_servers`, `redis_servers` | three servers, empty; all tests share them, so leave them running |
| `make_memcached`, `make_redis`, `make_nutcracker` | starts one server for this test alone; takes the arguments of `servers.start_…` |
| `server_kind` | `memcached`, then `redis`: a test that depends on it runs with each |
| `make_server` | `make_memcached`, then `make_redis` |
| `server_cluster` | `memcached_cluster`, then `redis_cluster` |
| `server_count` | how many servers there are: 3, unless you define it yourself, with the scope `session` |

The servers listen on free loopback ports, and are ended by their process ids, however the test ends. A
server that is not installed is an error that says how to install it, never a skip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest

from shardcache.testing.clusters import ServerCluster, running, stopping
from shardcache.testing.servers import Server, start_memcached, start_nutcracker, start_redis

# For a `conftest.py` that cannot name a plugin: pytest allows that only in the topmost one.
__all__ = [
    "_may_start_servers",
    "_memcached_pool",
    "_redis_pool",
    "make_memcached",
    "make_nutcracker",
    "make_redis",
    "make_server",
    "memcached_cluster",
    "memcached_servers",
    "redis_cluster",
    "redis_servers",
    "server_cluster",
    "server_count",
    "server_kind",
]

Start: TypeAlias = Callable[..., Server]


@pytest.fixture(scope="session")
def server_count() -> int:
    """Return how many servers a cluster has."""
    return 3


@pytest.fixture(scope="session")
def _may_start_servers() -> None:
    """Do nothing: a `conftest.py` may skip here what would start a server."""


@pytest.fixture(scope="session")
def _memcached_pool(_may_start_servers: None, server_count: int) -> Iterator[ServerCluster]:
    with running(*[start_memcached] * server_count) as servers:
        yield servers


@pytest.fixture(scope="session")
def _redis_pool(_may_start_servers: None, server_count: int) -> Iterator[ServerCluster]:
    with running(*[start_redis] * server_count) as servers:
        yield servers


@pytest.fixture
def memcached_servers(_memcached_pool: ServerCluster) -> ServerCluster:
    """Return three memcached nodes, empty."""
    _memcached_pool.empty()
    return _memcached_pool


@pytest.fixture
def redis_servers(_redis_pool: ServerCluster) -> ServerCluster:
    """Return three Redis nodes, empty."""
    _redis_pool.empty()
    return _redis_pool


@pytest.fixture
def memcached_cluster(_may_start_servers: None, server_count: int) -> Iterator[ServerCluster]:
    """Yield three memcached nodes of this test alone."""
    with running(*[start_memcached] * server_count) as servers:
        yield servers


@pytest.fixture
def redis_cluster(_may_start_servers: None, server_count: int) -> Iterator[ServerCluster]:
    """Yield three Redis nodes of this test alone."""
    with running(*[start_redis] * server_count) as servers:
        yield servers


@pytest.fixture
def make_memcached(_may_start_servers: None) -> Iterator[Start]:
    """Yield `start_memcached`; stop what it started at the end."""
    with _starting(start_memcached) as start:
        yield start


@pytest.fixture
def make_redis(_may_start_servers: None) -> Iterator[Start]:
    """Yield `start_redis`; stop what it started at the end."""
    with _starting(start_redis) as start:
        yield start


@pytest.fixture
def make_nutcracker(_may_start_servers: None) -> Iterator[Start]:
    """Yield `start_nutcracker`; stop what it started at the end."""
    with _starting(start_nutcracker) as start:
        yield start


@pytest.fixture(params=["memcached", "redis"])
def server_kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of server in turn."""
    kind: str = request.param
    return kind


@pytest.fixture
def make_server(request: pytest.FixtureRequest, server_kind: str) -> Start:
    """Return what starts a server of each kind in turn."""
    start: Start = request.getfixturevalue(f"make_{server_kind}")
    return start


@pytest.fixture
def server_cluster(request: pytest.FixtureRequest, server_kind: str) -> ServerCluster:
    """Return three nodes of each kind in turn, of this test alone."""
    servers: ServerCluster = request.getfixturevalue(f"{server_kind}_cluster")
    return servers


@contextmanager
def _starting(start: Start) -> Iterator[Start]:
    with stopping() as stop_at_end:

        def started(*arguments: Any, **options: Any) -> Server:  # as `start` takes them
            return stop_at_end(start(*arguments, **options))

        yield started
