"""The contract of all lock providers, on a real ensemble."""

from __future__ import annotations

import pytest

from shardcache.testing.locks import LockProviderContract
from shardcache.testing.servers import LOOPBACK, free_port


class TestZooKeeper(LockProviderContract):
    """Three servers."""

    @pytest.fixture
    def settings(self, url):
        """Return the settings of a client."""
        return {"locks": url}

    @pytest.fixture
    def ttl(self):
        """Return the session's timeout: a shorter ttl is refused."""
        return 3.0

    @pytest.fixture
    def stop(self, ensemble):
        """Return what has all servers hang; the next test resumes them."""
        return lambda: [server.pause() for server in ensemble.servers]

    @pytest.fixture
    def shared_nodes(self, cache):
        """Return a memcached."""
        return cache

    @pytest.fixture
    def unreachable(self):
        """Return the settings for an ensemble that does not run."""
        return {"locks": f"zookeeper://{LOOPBACK}:{free_port()}?session_timeout=3"}
