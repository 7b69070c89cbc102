"""Servers of these tests, each stopped at its end, and what the tests read from a registry."""

from __future__ import annotations

import contextlib

import pytest

from shardcache.testing.servers import start_memcached, start_redis


@pytest.fixture(scope="module")
def servers():
    """Yield two memcacheds and a Redis; a test may kill the first, if it starts it again."""
    with contextlib.ExitStack() as running:
        started = []
        for start in (start_memcached, start_redis, start_memcached):
            started.append(start())
            running.callback(started[-1].stop)
        yield started
