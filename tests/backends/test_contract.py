"""Every backend keeps the one contract, through both clients."""

from __future__ import annotations

import pytest

from shardcache.testing.backend import BackendContract, ServerContract
from shardcache.testing.driving import make_client
from shardcache.testing.servers import start_nutcracker


@pytest.fixture(scope="module")
def proxy(_memcached_pool):
    """Return a twemproxy of the nodes that all tests share."""
    nodes = [f"{server.host}:{server.port}:1" for server in _memcached_pool]
    server = start_nutcracker(
        {"servers": nodes, "hash": "fnv1a_64", "distribution": "ketama", "timeout": 5000}
    )
    yield server
    server.stop()


class TestMemory(BackendContract):
    """In-process memory nodes."""

    @pytest.fixture
    def url(self) -> str:
        """Return an embedded node; each client has its own."""
        return "memory://embedded"


class TestMemcached(ServerContract):
    """memcached by its meta protocol."""

    @pytest.fixture
    def url(self, memcached_servers) -> str:
        """Return a node flushed before the test."""
        return memcached_servers[0].url


class TestRedis(ServerContract):
    """Redis."""

    @pytest.fixture
    def url(self, redis_servers) -> str:
        """Return a node flushed before the test."""
        return redis_servers[0].url


class TestSigned(TestRedis):
    """A signature around what is stored changes nothing else."""

    @pytest.fixture
    def client(self, mode, url):
        """Return a client with a secret."""
        client = make_client(
            mode, url, secret="at least sixteen bytes", on_error="raise", timeout=5
        )
        yield client
        client.close()


class TestPymemcache(ServerContract):
    """memcached by its classic protocol, through pymemcache."""

    @pytest.fixture
    def url(self, memcached_servers) -> str:
        """Return a node flushed before the test."""
        return memcached_servers[0].url.replace("memcached://", "pymemcache://")


class TestTwemproxy(ServerContract):
    """Three memcached nodes behind twemproxy, as one node."""

    test_ping_stats_and_flush = None  # it answers neither of the last two; see the backend's tests

    @pytest.fixture
    def url(self, proxy, memcached_servers) -> str:  # noqa: ARG002 - they are emptied
        """Return the proxy, its nodes flushed before the test."""
        return f"pymemcache://{proxy.host}:{proxy.port}"
