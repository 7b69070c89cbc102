"""The nodes of these tests: in memory, and two servers of each kind."""

from __future__ import annotations

import pytest

from shardcache.testing.pytest_plugin import *  # noqa: F403 - fixtures


@pytest.fixture(scope="session")
def server_count() -> int:
    """Return how many servers of each kind there are."""
    return 2


@pytest.fixture(params=["memory", "memcached", "redis"])
def urls(request: pytest.FixtureRequest) -> list[str]:
    """Return the URLs of each kind of nodes in turn."""
    if request.param == "memory":
        return ["memory://a", "memory://b"]
    return request.getfixturevalue(f"{request.param}_servers").urls
