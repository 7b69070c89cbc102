"""Fixtures of the tests of the fault proxy."""

from __future__ import annotations

import contextlib
import socket

import pytest

from shardcache.testing import FaultProxy
from testing.lines import ASK, PROMPT


@pytest.fixture(params=ASK)
def kind(request):
    """Return each kind of server in turn."""
    return request.param


@pytest.fixture
def server(kind, request):
    """Return a running server of this kind."""
    return request.getfixturevalue(f"{kind}_servers")[0]


@pytest.fixture
def reply(kind, server):
    """Return what the server says to `ASK`, heard without a proxy."""
    with socket.create_connection((server.host, server.port), timeout=PROMPT) as direct:
        direct.sendall(ASK[kind])
        return direct.recv(1000)


@pytest.fixture
def proxy(server):
    """Return a proxy to it."""
    with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def memcached(memcached_servers):
    """Return a proxy to a memcached."""
    with FaultProxy(memcached_servers[0].url) as proxy:
        yield proxy


@pytest.fixture
def dial():
    """Return a function that connects to a proxy; all is closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(proxy, timeout=PROMPT):
            return stack.enter_context(
                contextlib.closing(
                    socket.create_connection((proxy.host, proxy.port), timeout=timeout)
                )
            )

        yield connect
