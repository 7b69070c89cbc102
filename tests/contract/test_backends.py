"""Every backend keeps the one contract, through both clients."""

from __future__ import annotations

import pytest

from shardcache.testing.backend import BackendContract, ServerContract


class TestMemory(BackendContract):
    """Embedded nodes."""

    @pytest.fixture
    def url(self) -> str:
        """Give an embedded node; each client has its own."""
        return "memory://embedded"


class TestMemcached(ServerContract):
    """memcached by its meta protocol."""

    @pytest.fixture
    def url(self, memcached_servers) -> str:
        """Give a node flushed before the test."""
        return memcached_servers[0].url


class TestRedis(ServerContract):
    """Redis."""

    @pytest.fixture
    def url(self, redis_servers) -> str:
        """Give a node flushed before the test."""
        return redis_servers[0].url


class TestPymemcache(ServerContract):
    """memcached by its classic protocol, through pymemcache."""

    @pytest.fixture
    def url(self, memcached_servers) -> str:
        """Give a node flushed before the test."""
        return memcached_servers[0].url.replace("memcached://", "pymemcache://")
