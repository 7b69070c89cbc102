"""A node's address is asked for each dial, so that a node can move to another server."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from shardcache import Node, NodeUnavailableError
from shardcache.backends.base import BackendOptions
from shardcache.backends.memcached import Memcached
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.redis import Redis
from shardcache.backends.transport.resolver import Resolver
from shardcache.core.commands import Get, Set
from shardcache.core.values.flags import RAW_FLAGS
from shardcache.plugin.manager import load
from shardcache.testing.driving import MODES, make_client

OPTIONS = BackendOptions(connect_timeout=5, call_timeout=5)
KEY = b"k"


class Directory(Resolver):
    """A directory of servers whose entry can change, such as a monitor of failovers."""

    def __init__(self, server):
        self.server = server
        self.asked = []

    def resolve(self, node):
        """Return the address of the current server."""
        self.asked.append(node.name)
        if isinstance(self.server, Exception):
            raise self.server
        return [(socket.AF_INET, (self.server.host, self.server.port))]


class Blocking:
    """A node asked by a thread."""

    def __init__(self, factory, scheme):
        self.backend = factory.blocking(Node(f"{scheme}://primary"), OPTIONS)

    def ask(self, command):
        """Execute a command and return its reply."""
        return self.backend.execute(command, time.monotonic() + 5)

    def close(self):
        """Close the backend."""
        self.backend.close()


class Asyncio:
    """The same node asked by a task."""

    def __init__(self, factory, scheme):
        self.runner = asyncio.Runner()
        self.backend = factory.asyncio(Node(f"{scheme}://primary"), OPTIONS)

    def ask(self, command):
        """Execute a command and return its reply."""

        async def execute():
            return await self.backend.execute(command, time.monotonic() + 5)

        return self.runner.run(execute())

    def close(self):
        """Close the backend."""
        self.runner.run(self.backend.aclose())
        self.runner.close()


BACKENDS = [(Memcached, "memcached"), (Pymemcache, "pymemcache"), (Redis, "redis")]


@pytest.fixture(params=[Blocking, Asyncio])
def make(request):
    """Return a factory of blocking, then of asyncio nodes that use a resolver."""
    nodes = []

    def make(factory, scheme, directory):
        nodes.append(request.param(factory(resolver=directory), scheme))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def servers(redis_servers, memcached_servers):
    """Return a function that gives two empty servers for a scheme."""

    def servers(scheme):
        return (redis_servers if scheme == "redis" else memcached_servers)[:2]

    return servers


@pytest.mark.parametrize(("factory", "scheme"), BACKENDS)
def test_the_next_dial_goes_where_the_resolver_says_then(make, factory, scheme, servers):
    """A node whose address changes between two dials is found at its new one."""
    old, new = servers(scheme)
    directory = Directory(old)
    node = make(factory, scheme, directory)
    assert node.ask(Set(KEY, (RAW_FLAGS, b"old"))) is True
    assert node.ask(Get(KEY)) == (RAW_FLAGS, b"old")
    assert directory.asked == ["primary:6379" if scheme == "redis" else "primary:11211"]

    directory.server = new
    assert node.ask(Get(KEY)) == (RAW_FLAGS, b"old")  # over the open connection
    node.backend.eject()
    assert node.ask(Get(KEY)) is None
    assert len(directory.asked) == 2


@pytest.mark.parametrize("failure", [OSError("no primary"), ValueError("no json")], ids=repr)
def test_a_resolver_that_fails_leaves_the_last_good_address(make, servers, failure):
    """Whatever it raises: the server may be up while the directory is not."""
    (server, _) = servers("memcached")
    directory = Directory(failure)
    node = make(Memcached, "memcached", directory)
    with pytest.raises(NodeUnavailableError, match="cannot be resolved: no "):
        node.ask(Get(KEY))
    directory.server = server
    assert node.ask(Set(KEY, (RAW_FLAGS, b"v"))) is True
    directory.server = failure
    node.backend.eject()
    assert node.ask(Get(KEY)) == (RAW_FLAGS, b"v")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("factory", "scheme"), BACKENDS)
def test_a_plugin_registers_it_for_its_own_scheme(mode, factory, scheme, servers, monkeypatch):
    """Both clients then find nodes of that scheme by the resolver."""
    (server, _) = servers(scheme)
    registered = factory(resolver=Directory(server))
    monkeypatch.setitem(load().backends._entries, f"{scheme}+mine", registered)
    client = make_client(mode, f"{scheme}+mine://primary", on_error="raise", timeout=5)
    assert client.set("k", 1)
    assert client.get("k") == 1
    client.close()
