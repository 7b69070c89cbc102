"""Fixtures of the tests of the pymemcache backend."""

from __future__ import annotations

import pytest

from backends.pymemcache.asking import make_backend


@pytest.fixture
def backend(memcached_servers):
    """Return a backend for an empty server."""
    backend = make_backend(memcached_servers[0])
    yield backend
    backend.close()
