"""The servers of these tests: two memcached nodes, or two Redis nodes."""

from __future__ import annotations

import pytest

from shardcache.testing.clusters import ServerCluster
from shardcache.testing.pytest_plugin import *  # noqa: F403 - fixtures


@pytest.fixture(scope="session")
def server_count() -> int:
    """Return how many nodes there are."""
    return 2


@pytest.fixture
def servers(server_cluster: ServerCluster) -> ServerCluster:
    """Return two servers of each kind in turn."""
    return server_cluster


@pytest.fixture
def urls(servers: ServerCluster) -> list[str]:
    """Return the URLs of two nodes of each kind in turn."""
    return servers.urls
