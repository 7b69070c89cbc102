"""Servers of these tests, each stopped at its end."""

from __future__ import annotations

import pytest

from shardcache.testing.clusters import running
from shardcache.testing.servers import start_memcached, start_redis


@pytest.fixture(scope="module")
def servers():
    """Yield two memcacheds and a Redis; a test may kill the first, if it starts it again."""
    with running(start_memcached, start_redis, start_memcached) as servers:
        yield servers
