"""A call ends at its deadline, whatever a node or its connections do."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from backends.fakes import fake_node, token_of
from shardcache import AsyncClient, Client, NodeTimeoutError, NodeUnavailableError
from shardcache.backends.base import BackendOptions
from shardcache.backends.memcached import Memcached
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.transport.pool import Connection
from shardcache.core.commands import Get
from shardcache.core.placement.nodes import Node
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually


def test_a_deadline_is_one_for_the_whole_call(mode):
    """A node that drips one byte at a time does not get a new deadline with each."""

    def behave(connection, _):
        for byte in b"VA 100 f0 " + token_of(connection.recv(4096)) + b"\r\n" + b"x" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.09)

    with fake_node(behave) as address:
        client = make_client(mode, f"memcached://{address}", on_error="raise", timeout=0.3)
        started = time.monotonic()
        with pytest.raises(NodeTimeoutError):
            client.get("k")
        assert time.monotonic() - started < 1.5
        client.close()


@pytest.mark.parametrize("main", [True, False])
def test_a_deadline_is_one_for_the_whole_call_over_a_pooled_connection(main):
    """In the main thread, which polls, and in others, which use the kernel's timeout."""

    def behave(connection, _):
        connection.sendall(b"EN %s\r\n" % token_of(connection.recv(4096)))
        for byte in b"VA 100 f0 " + token_of(connection.recv(4096)) + b"\r\n" + b"x" * 60:
            connection.sendall(bytes([byte]))
            time.sleep(0.09)

    with fake_node(behave) as address:
        client = Client(f"memcached://{address}", on_error="raise", timeout=0.3)
        assert client.get("k") is None
        taken = []

        def get():
            started = time.monotonic()
            with pytest.raises(NodeTimeoutError):
                client.get("k")
            taken.append(time.monotonic() - started)

        if main:
            get()
        else:
            thread = threading.Thread(target=get)
            thread.start()
            thread.join(30)
        assert taken[0] < 1.5
        client.close()


def test_a_late_reply_reaches_no_later_call(mode, make_memcached):
    """A stopped node may send it after its deadline."""
    server = make_memcached()
    client = make_client(mode, server.url, on_error="raise", timeout=0.2)
    client.set_many({f"k{n}": n for n in range(20)})
    server.pause()
    for number in range(3):
        with pytest.raises(NodeTimeoutError):
            client.get(f"k{number}")
    server.resume()
    eventually(lambda: client.ping() and not client.ejected, within=10)
    for _ in range(3):
        for number in range(20):
            assert client.get(f"k{number}") == number
    client.close()


def test_a_stopped_node_takes_nothing_from_the_others(mode, make_memcached):
    """`get_many` keeps the answers of the other nodes, within one deadline."""
    servers = [make_memcached() for _ in range(4)]
    client = make_client(mode, [server.url for server in servers], timeout=0.5)
    items = {f"key:{n}": "v" * 2000 for n in range(2000)}
    assert client.set_many(items) == []
    owned = {key for key in items if client.node_for(key).address.port == servers[0].port}
    servers[0].pause()
    started = time.monotonic()
    found = client.get_many(items)
    assert time.monotonic() - started < 2
    assert found == {key: value for key, value in items.items() if key not in owned}
    assert 0 < len(owned) < len(items)
    servers[0].resume()
    client.close()


async def test_calls_under_way_do_not_wait_for_an_ejected_node(make_memcached):
    """They end at once, however much time they had left."""
    server = make_memcached()
    async with AsyncClient(server.url, on_error="raise", timeout=20) as client:
        await client.set("k", 1)
        server.pause()
        call = asyncio.create_task(client.get("k"))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        next(iter(client._cluster.members.values())).backend.eject()
        with pytest.raises(NodeUnavailableError, match="ejected"):
            await call
        assert time.monotonic() - started < 5
        server.resume()


@pytest.mark.slow
def test_each_call_keeps_its_own_deadline(mode, make_memcached):
    """A call on a silent node ends in its own time, however late the calls before it are."""
    server = make_memcached()
    client = make_client(mode, server.url, on_error="raise", timeout=1)
    client.set("k", 1)
    server.pause()
    for _ in range(3):  # then the node is ejected
        started = time.monotonic()
        with pytest.raises(NodeTimeoutError):
            client.get("k")
        assert 0.9 < time.monotonic() - started < 1.6
    server.resume()
    client.close()


def test_a_deadline_that_has_passed_is_never_waited_on():
    """A call past its deadline times out, and does not wait for ever."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours, MemcachedWire())
    for late in (0.0, -0.001, -5.0):
        with pytest.raises(TimeoutError):
            connection.arm(late)
    connection.close()
    theirs.close()


def test_an_unknown_host_is_an_error_in_time(mode):
    """A `NodeUnavailableError`, within the deadline."""
    client = make_client(mode, "memcached://no-such-host.invalid", on_error="raise", timeout=2)
    started = time.monotonic()
    with pytest.raises((NodeUnavailableError, NodeTimeoutError)):
        client.get("k")
    assert time.monotonic() - started < 4
    client.close()


def test_an_exhausted_pool_is_named(make_memcached):
    """Waiting for a connection counts against the deadline."""
    server = make_memcached()
    client = Client(server.url, pool_size=1, on_error="raise", timeout=0.2)
    client.set("k", 1)
    backend = next(iter(client._cluster.members.values())).backend
    lent = backend.pool.get_idle()
    with pytest.raises(NodeTimeoutError, match="connections were in use until the deadline"):
        client.get("k")
    backend.pool.put(lent)
    assert client.get("k") == 1
    client.close()


def test_a_call_ends_in_its_time_behind_longer_ones():
    """It times out when its own deadline has passed."""

    def silent(connection, _):
        while connection.recv(4096):
            pass

    async def main(address):
        backend = Memcached().asyncio(Node(f"memcached://{address}"), BackendOptions())
        began = time.monotonic()
        newer = backend.execute(Get(b"newer"), began + 20)
        ends = [began + 0.4, began + 0.2, began + 0.3]
        older = [backend.execute(Get(b"older"), end) for end in ends]
        for call in older:
            with pytest.raises(NodeTimeoutError):
                await call
        assert 0.4 <= time.monotonic() - began < 10
        assert not newer.done()
        newer.cancel()
        await backend.aclose()

    with fake_node(silent) as address:
        asyncio.run(main(address))
