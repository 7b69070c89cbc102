"""A connection is at a reply boundary or closed, whatever the node does."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time

import pytest

from backends.fakes import fake_node, reset, token_of
from shardcache import (
    AsyncClient,
    Client,
    NodeError,
    NodeProtocolError,
    NodeTimeoutError,
    NodeUnavailableError,
    PartialFailureError,
)
from shardcache.core.commands import Get
from shardcache.operations.port import step
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

REPLY = b"VA 5 f0 %s\r\nhello\r\n"
ENDS = {"FIN": socket.socket.close, "RST": reset, "stall": lambda connection: connection.recv(1)}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_reply_cut_anywhere_is_an_error_and_the_next_call_is_right(mode, end):
    """No part of a reply is ever a value."""
    whole = len(REPLY % b"O1234567890")
    # A node that stalls costs the call its whole timeout, after each count of bytes.
    step, timeout = (8, 0.7) if end == "stall" else (3, 20.0)
    for count in range(0, whole, step):

        def behave(connection, number, count=count):
            while request := connection.recv(4096):
                reply = REPLY % token_of(request)
                if number == 0 and count < len(reply):
                    connection.sendall(reply[:count])
                    ENDS[end](connection)
                    return
                connection.sendall(reply)

        with fake_node(behave) as address:
            client = make_client(mode, f"memcached://{address}", on_error="raise", timeout=timeout)
            with contextlib.suppress(NodeUnavailableError, NodeTimeoutError):
                assert client.get("k") == b"hello", f"after {count} bytes"
            if end == "stall" and mode == "asyncio":  # the late reply is still owed
                client.close()
                continue
            assert client.get("k") == b"hello", f"after {count} bytes"
            client.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"VA 5 f0 O1\r\nhello\r\n",
        b"VA 5 f0 %s\r\nhelloXX",
        b"VA -5 f0 %s\r\nhello\r\n",
        b"VA 99999999999 f0 %s\r\nhello\r\n",
        b"VA 5 f0\r\nhello\r\n",
        b"VA 5 %s f0\r\nhello\r\n",
        b"HD %s\r\n",
        b"NF\r\n",
        b"ERROR\r\n",
        b"END\r\n",
        b"+PONG\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\r\n",
        b"x" * 5000,
        b"EN %s\r\nEN %s\r\n",
    ],
    ids=repr,
)
def test_nonsense_is_never_a_value(mode, reply):
    """An answer of another token, length or grammar is an error, and ends its connection."""

    def behave(connection, number):
        token = token_of(connection.recv(4096))
        if number == 0:
            connection.sendall(reply.replace(b"%s", token))
            while connection.recv(4096):
                pass
        else:
            connection.sendall(REPLY % token)
            time.sleep(1)

    with fake_node(behave) as address:
        client = make_client(mode, f"memcached://{address}", on_error="raise", timeout=2)
        with pytest.raises(NodeProtocolError):
            client.get("k")
        assert client.get("k") == b"hello"
        client.close()


@pytest.mark.parametrize("reply", [b"*1\r\n*100000000\r\n", b"*2\r\n>100000000\r\n"], ids=repr)
@pytest.mark.parametrize("call", ["get", "get_many"])
def test_a_reply_of_many_parts_is_refused_at_once(mode, call, reply):
    """No time is spent on an array that was not asked for."""

    def behave(connection, number):
        while connection.recv(4096):
            connection.sendall(b"$-1\r\n" if number else reply)

    with fake_node(behave) as address:
        client = make_client(mode, f"redis://{address}", on_error="raise", timeout=20)
        began = time.monotonic()
        with pytest.raises((NodeProtocolError, PartialFailureError)):
            client.get("k") if call == "get" else client.get_many(["k", "l"])
        assert time.monotonic() - began < 10
        assert client.get("k") is None
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [30, 2000])
def test_the_values_before_a_failure_are_kept(mode, pooled, count, size):
    """A node that fails half-way takes no value that it sent before, in any kind of call."""

    def behave(connection, _):
        while request := connection.recv(1 << 20):
            if request.startswith(b"mg") and b" q " in request:
                connection.sendall(REPLY % token_of(request))
            elif request.startswith(b"mg"):
                connection.sendall(b"EN %s\r\n" % token_of(request))

    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(fake_node(behave)) for _ in range(count)]
        urls = [f"memcached://{address}" for address in addresses]
        client = make_client(mode, urls, on_error="raise", timeout=0.3)
        keys = [f"key:{number}" for number in range(size)]
        firsts = {}
        for key in keys:
            firsts.setdefault(client.node_for(key), key)
        assert len(firsts) == count
        if pooled:
            assert [client.get(key) for key in firsts.values()] == [None] * count
        with pytest.raises(PartialFailureError) as raised:
            client.get_many(keys)
        assert raised.value.found == dict.fromkeys(firsts.values(), b"hello")
        assert set(raised.value.failed) == set(keys) - set(firsts.values())
        assert {type(error) for error in raised.value.failed.values()} == {NodeTimeoutError}
        client.close()


def test_partial_failure_says_what_was_found(mode, make_memcached):
    """Under `on_error="raise"` the error holds the found and the failed keys."""
    servers = [make_memcached() for _ in range(3)]
    client = make_client(mode, [server.url for server in servers], timeout=1, on_error="raise")
    items = {f"key:{n}": n for n in range(300)}
    client.set_many(items)
    servers[1].kill()
    gone = {key for key in items if client.node_for(key).address.port == servers[1].port}
    with pytest.raises(PartialFailureError) as caught:
        client.get_many(items)
    assert caught.value.found == {key: n for key, n in items.items() if key not in gone}
    assert set(caught.value.failed) == gone
    assert all(isinstance(error, NodeError) for error in caught.value.failed.values())
    with pytest.raises(PartialFailureError) as caught:
        client.set_many(items)
    assert set(caught.value.failed) == gone
    assert set(caught.value.succeeded) == set(items) - gone
    for call in (client.get_many, client.delete_many, lambda keys: client.set_many(items | keys)):
        with pytest.raises(PartialFailureError) as caught:
            call(items)
        assert caught.value.total == 300
        node = f"127.0.0.1:{servers[1].port}"
        assert str(caught.value).startswith(
            f"{len(gone)} of 300 keys failed on 1 of 3 nodes ({node}: "
        )
    client.close()


@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_dead_node_is_a_miss_and_comes_back(mode, kind, make_memcached, make_redis):
    """By default a failing node reads as a miss, writes as `False`, and all of it is counted."""
    server = (make_memcached if kind == "memcached" else make_redis)()
    client = make_client(mode, server.url, timeout=1)
    assert client.set("k", 1)
    server.kill()
    assert client.get("k", "default") == "default"
    assert client.get_many(["k"]) == {}
    assert client.set("k", 2) is False
    assert client.set_many({"k": 2}) == ["k"]
    assert client.delete("k") is False
    assert client.delete_many(["k"]) == 0
    assert client.incr("n", initial=1) is None
    assert client.flush_all() is False
    (figures,) = client.stats().values()
    assert isinstance(figures.server, NodeError)
    assert figures.client["swallowed_errors"] >= 8
    server.restart()
    eventually(lambda: client.set("k", 3), within=10)
    assert client.get("k") == 3
    client.close()


def test_a_server_that_closed_idle_connections_costs_no_call(mode, make_memcached):
    """An idempotent call replaces a pooled connection that died, without an error."""
    server = make_memcached()
    client = make_client(mode, server.url, on_error="raise", timeout=2)
    client.set("k", 1)
    server.kill()
    server.restart()
    assert client.get("k") is None
    assert client.set("k", 2)
    assert client.get_many(["k"]) == {"k": 2}
    client.close()


def test_a_count_is_sent_once(mode):
    """It may have been executed, however dead the connection was."""
    asked = []

    def behave(connection, _):
        while request := connection.recv(4096):
            if request.startswith(b"mn"):  # the key is looked after in the background
                connection.sendall(b"MN\r\n")
                continue
            asked.append(request[:2])
            if request.startswith(b"ma"):
                connection.close()
                return
            connection.sendall(b"EN %s\r\n" % token_of(request))

    with fake_node(behave) as address:
        client = make_client(mode, f"memcached://{address}", on_error="raise", timeout=2)
        assert client.get("k") is None
        with pytest.raises(NodeUnavailableError, match="lost the connection"):
            client.incr("k")
        assert client.get("k") is None
        assert asked == [b"mg", b"ma", b"mg"]
        client.close()


async def test_a_call_is_retried_once():
    """A node may answer one call of each connection and hang up on the next."""

    def behave(connection, number):
        requests = connection.recv(4096)
        connection.sendall(b"EN %s\r\n" % token_of(requests))
        if number == 0:
            connection.recv(4096)
        connection.close()

    with fake_node(behave) as address:
        async with AsyncClient(f"memcached://{address}", on_error="raise", timeout=5) as client:
            assert await client.get("k") is None
            calls = [client.get(key) for key in ("a", "b")]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            backend = next(iter(client._cluster.members.values())).backend
            assert (backend.retried, backend.dialed) == (2, 2)
            assert sum(answer is None for answer in answers) <= 1
            assert any(isinstance(answer, NodeUnavailableError) for answer in answers)


async def test_a_connection_far_behind_is_replaced():
    """Later calls do not queue behind a reply that never comes."""

    def behave(connection, number):
        while request := connection.recv(4096):
            if number > 0:
                connection.sendall(REPLY % token_of(request))

    with fake_node(behave) as address:
        async with AsyncClient(f"memcached://{address}", on_error="raise", timeout=0.1) as client:
            with pytest.raises(NodeTimeoutError):
                await client.get("k")
            backend = next(iter(client._cluster.members.values())).backend
            end = time.monotonic() + 10.0
            while backend._channels:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            assert await client.get("k") == b"hello"


def test_an_interrupted_call_closes_its_connections(make_memcached):
    """No reply of any node that it asked is left for the next call."""
    servers = [make_memcached() for _ in range(2)]
    with Client([server.url for server in servers], on_error="raise", timeout=5) as client:
        cluster = client._cluster
        client.ping()
        backends = [member.backend for member in cluster.members.values()]
        assert [backend.pool.open for backend in backends] == [1, 1]

        def interrupted(_):
            raise KeyboardInterrupt

        asks = [(backend, Get(b"k")) for backend in backends]
        for (
            server
        ) in servers:  # else all may have answered before it is asked whether that is enough
            server.pause()
        with pytest.raises(KeyboardInterrupt) as raised:  # whose trace keeps all that it met alive
            step(cluster.io.call_many(asks, cluster.deadline(), interrupted))
        assert [backend.pool.open for backend in backends] == [0, 0]
        for server in servers:
            server.resume()
        del raised
        assert len(client.ping()) == 2


def test_a_connection_in_the_middle_of_a_reply_is_not_lent_again(make_memcached):
    """It is closed when it is put back, and its slot is free."""
    server = make_memcached()
    client = Client(server.url, on_error="raise", timeout=2)
    client.set("k", 1)
    pool = next(iter(client._cluster.members.values())).backend.pool
    lent = pool.get_idle()
    lent.wire.encode(Get(b"k"))  # whose reply is owed from now on
    pool.put(lent)
    assert (pool.get_idle(), pool.open) == (None, 0)
    assert client.get("k") == 1
    client.close()


def test_a_node_that_hangs_up_at_once_is_not_dialed_again_and_again(mode):
    """A call dials once, so a server that closes each connection meets no storm."""
    dialed = []

    def behave(connection, number):
        dialed.append(number)
        connection.close()

    with fake_node(behave) as address:
        client = make_client(mode, f"memcached://{address}", on_error="raise", timeout=1)
        for _ in range(2):  # then the node is ejected
            with pytest.raises(NodeUnavailableError, match="lost the connection"):
                client.get("k")
        client.close()
    assert len(dialed) == 2


def test_running_out_of_descriptors_is_an_error_of_the_node(mode, make_memcached):
    """A process without a descriptor left gets a `NodeUnavailableError`, and recovers."""
    server = make_memcached()
    client = make_client(mode, server.url, on_error="raise", timeout=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(socket.socket())
        with pytest.raises(NodeUnavailableError, match="open files"):
            client.get("k")
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert client.get("k") is None
    client.close()


def test_an_impossible_host_name_is_a_miss(mode):
    """A label above 63 characters is an error of its node, as an unknown name."""
    client = make_client(mode, f"memcached://{'a' * 70}.invalid", timeout=2)
    assert client.get("k") is None
    client.close()
