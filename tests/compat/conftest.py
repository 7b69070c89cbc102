"""Two clients of the same servers: pymemcache's `HashClient`, and ours."""

from __future__ import annotations

import contextlib

import pytest
from pymemcache.client.hash import HashClient as TheirHashClient

from shardcache.compat.pymemcache import HashClient

BOTH = {"theirs": TheirHashClient, "ours": HashClient}


@pytest.fixture
def hosts(memcached_servers):
    """Return three servers as pymemcache names them."""
    return [(server.host, server.port) for server in memcached_servers]


@pytest.fixture
def make(hosts):
    """Yield a function that makes either client; it waits for answers, and for long enough."""
    with contextlib.ExitStack() as stack:

        def make(whose, servers=None, **settings):
            settings = {"default_noreply": False, "timeout": 10, **settings}
            client = BOTH[whose](hosts if servers is None else servers, **settings)
            stack.callback(client.close)
            return client

        yield make
