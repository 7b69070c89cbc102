"""A call through pymemcache ends in its time, and a bounded number of connections serve all."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time

import pytest

from backends.pymemcache.asking import OTHER, TEXT, ask, fake_server, make_backend
from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.pymemcache.backend import Job, ThreadExchange
from shardcache.core.commands import Get, GetMany, Ping, Set
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    NodeTimeoutError,
    NodeUnavailableError,
    PartialFailureError,
    PoolTimeoutError,
)
from shardcache.io.blocking import BlockingIO
from shardcache.operations.port import step
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually


def test_a_dead_server_is_unavailable_and_comes_back(make_memcached):
    """A refused and a lost connection are the same to the caller, and nothing sticks."""
    server = make_memcached()
    backend = make_backend(server)
    ask(backend, Set(b"k", TEXT))
    server.kill()
    for _ in range(2):
        with pytest.raises(NodeUnavailableError, match="cache1"):
            ask(backend, Get(b"k"))
    assert all(
        isinstance(reply, NodeUnavailableError) for reply in ask(backend, GetMany([b"a"] * 500))
    )
    server.restart()
    assert ask(backend, Get(b"k")) is None
    backend.close()


def test_a_stopped_server_times_out(make_memcached):
    """Connected or dialing; a late reply is dropped."""
    server = make_memcached()
    backend = make_backend(server)
    ask(backend, Set(b"k", TEXT))
    server.pause()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(NodeTimeoutError, match="cache1"):
            ask(backend, Get(b"k"), 0.1)
        assert time.monotonic() - began < 2
    server.resume()
    assert ask(backend, Get(b"other")) is None
    assert ask(backend, Get(b"k")) == TEXT
    backend.close()


def drip(connection):
    """Send a byte now and then, for ever."""
    connection.sendall(b"VALUE k 16 1000\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.03)


def test_a_dripping_server_times_out():
    """One deadline holds for the call, not for each byte."""
    with fake_server(drip) as port:
        backend = make_backend(port)
        began = time.monotonic()
        with pytest.raises(NodeTimeoutError):
            ask(backend, Get(b"k"), 0.2)
        assert time.monotonic() - began < 3
        backend.close()


def test_the_pool_is_bounded(make_memcached):
    """A call without a connection gets an error that names its own pool."""
    server = make_memcached()
    backend = make_backend(server, pool_size=1)
    held = backend._borrow(time.monotonic() + 5)
    with pytest.raises(PoolTimeoutError):
        ask(backend, Get(b"k"), 0.1)
    backend.pool.put(held)
    assert ask(backend, Get(b"k")) is None
    backend.close()


def test_several_nodes_are_asked_at_once(memcached_servers, make_memcached):
    """A stopped node times out alone, and the replies of the others are kept."""
    stopped = make_memcached()
    backends = [make_backend(server) for server in (stopped, *memcached_servers)]
    stopped.pause()
    asks = [(backend, Set(b"k", TEXT)) for backend in backends]
    (late, _), *rest = step(BlockingIO().call_many(asks, time.monotonic() + 1))
    assert isinstance(late, NodeTimeoutError)
    assert [reply for reply, _ in rest] == [True] * len(memcached_servers)
    for backend in backends:
        backend.close()


def test_parts_that_came_in_time_are_kept():
    """Of many keys in parts, the rest times out."""
    with fake_server(b"END\r\n") as port:
        backend = make_backend(port)
        exchange = backend.begin(GetMany([b"k"] * 250), time.monotonic() + 20)
        eventually(lambda: len(exchange.job.so_far) == 200, within=10)
        exchange.expire()
        replies = exchange.result()
        assert replies[:200] == [None] * 200
        assert all(isinstance(reply, NodeTimeoutError) for reply in replies[200:])
        backend.close()


def test_an_outcome_is_its_first_arrival():
    """What arrives later changes nothing, and closes nothing."""
    exchange = ThreadExchange(Job(Ping(), time.monotonic() + 5, "cache1"))
    strangers = []
    for reply in (True, None, NodeTimeoutError("late")):
        exchange.deliver(reply)
        strangers.append(os.pipe())
    exchange.advance()
    exchange.deliver(None)
    assert exchange.result() is True
    for pair in strangers:
        for descriptor in pair:
            os.close(descriptor)  # raises if another has closed it


def test_a_thread_that_starts_late_does_no_work(memcached_servers, monkeypatch):
    """An interrupt while a thread starts drops its work."""
    backend = make_backend(memcached_servers[0])
    start, begun = threading.Thread.start, []

    def interrupted(thread):
        begun.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.begin(Ping(), time.monotonic() + 5)
    strangers = [os.pipe() for _ in range(4)]
    for thread in begun:
        start(thread)
    backend.close()
    for thread in begun:
        thread.join(10)
    for reader, writer in strangers:
        os.close(writer)
        assert os.read(reader, 1) == b""  # nothing was written, and nothing closed
        os.close(reader)


def test_without_threads_no_node_is_ejected(memcached_servers, mode, monkeypatch):
    """A process that can start no thread gets an error of its own."""
    url = memcached_servers[0].url.replace("memcached", "pymemcache")
    other = memcached_servers[1].url.replace("memcached", "pymemcache")

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with contextlib.closing(make_client(mode, [url, other], on_error="raise")) as client:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(PartialFailureError) as raised:
                client.get_many([f"k{number}" for number in range(20)])
            for error in raised.value.failed.values():
                assert isinstance(error, NodeUnavailableError)
                assert failure_kind(error) is FailureKind.NONE
        assert client.get_many([f"k{number}" for number in range(20)]) == {}


def test_an_abandoned_exchange_frees_its_slot(memcached_servers):
    """A reply that is not awaited holds no connection."""
    backend = make_backend(memcached_servers[0], pool_size=1)
    for _ in range(50):
        exchange = backend.begin(Set(b"k", TEXT), time.monotonic() + 5)
        exchange.abandon()
    assert ask(backend, Set(b"k", OTHER)) is True
    assert ask(backend, Get(b"k")) == OTHER
    backend.close()


def test_a_reply_wakes_a_poller_in_spite_of_a_fork(memcached_servers):
    """A forked child may still hold the other end."""
    backend = make_backend(memcached_servers[0])
    exchange = ThreadExchange(Job(Ping(), time.monotonic() + 5, "cache1"))
    inherited = os.dup(exchange._wakeup._outer.fileno())
    backend.start(exchange.job, exchange)
    poll = select.poll()
    descriptor, mask, _ = exchange.wait
    poll.register(descriptor, mask)
    assert poll.poll(10_000)
    exchange.advance()
    assert exchange.result() is True
    os.close(inherited)
    backend.close()


async def test_closing_waits_for_calls_in_flight(memcached_servers):
    """Calls that were sent are answered before their connections close."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions())
    calls = [backend.execute(Ping(), time.monotonic() + 10) for _ in range(10)]
    await backend.aclose()
    assert all(call.done() and call.result() is True for call in calls)
