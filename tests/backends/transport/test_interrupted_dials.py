"""An interrupted dial, or close, of an event loop's connection costs no later call anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import pytest

from interrupting import interrupted
from shardcache import AsyncClient
from shardcache.backends.base import BackendOptions
from shardcache.backends.memcached import Memcached
from shardcache.backends.redis import Redis
from shardcache.backends.transport.channel import Channel
from shardcache.core.commands import Get
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.placement.nodes import Node
from shardcache.errors import NodeError

TURN = 0.5  # seconds for a call that is interrupted
PATIENCE = 20.0  # seconds for a later one, which is answered at once
CALLS = 3
WATCHED = 2  # descriptors: the connection, and what wakes the loop
STEPS = (
    *("submit", "_open", "_connect", "run_steps", "dial", "_addresses", "_dial_one", "_tune"),
    *("_greet", "_wait_ready", "wake", "_use", "_flush", "_close", "_fail_queued", "_abort"),
)
UNWATCHING = ("remove_reader", "remove_writer")  # of the event loop


class Interrupt(BaseException):
    """Raised by a signal handler, in the middle of anything."""


class SoftInterrupt(Exception):  # noqa: N818 - named as the other
    """The same, of a class that a careless `except` would catch."""


def is_step(code):
    """Return whether the function opens or closes a connection."""
    ours = "shardcache/backends" in code.co_filename and code.co_name in STEPS
    return ours or code.co_name in UNWATCHING


# Of an interrupt between the making of a socket and its first owner Python's own finalizers tell;
# they also close what there is to close, so nothing is lost.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [Interrupt, SoftInterrupt])
@pytest.mark.parametrize("plugin", [Memcached, Redis])
def test_the_next_dial_works(kind, plugin, memcached_servers, redis_servers, monkeypatch):
    """Whatever step a signal breaks off, no node is blamed, and later calls are answered at once."""
    made = []

    class Recorded(kind):
        def __init__(self):
            made.append(self)

    monkeypatch.setattr("interrupting.Interrupt", Recorded)
    servers = redis_servers if plugin is Redis else memcached_servers
    options = BackendOptions(call_timeout=TURN, connect_timeout=TURN)
    backend = plugin().asyncio(Node(servers[0].url), options)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    blamed = []

    async def ask(seconds):
        deadline = time.monotonic() + seconds
        calls = [backend.execute(Get(b"absent"), deadline) for _ in range(CALLS)]
        await asyncio.wait(calls)
        return [call.exception() or call.result() for call in calls]

    def reconnect():
        gc.collect()  # what the frames of the last interrupt have kept
        loop.run_until_complete(asyncio.sleep(0))
        assert len(loop._selector.get_map()) == WATCHED
        for channel in list(backend._channels.values()):
            channel._close()
        try:
            replies = loop.run_until_complete(ask(TURN))
        finally:
            made and gc.collect()
        if made:
            blamed.extend(failure_kind(reply) for reply in replies if isinstance(reply, NodeError))
            raise made.pop()
        assert replies == [absent] * CALLS

    with contextlib.closing(loop):
        (absent, *_) = loop.run_until_complete(ask(PATIENCE))
        interrupts = 0
        for interrupt in interrupted(reconnect, is_step):
            del interrupt  # with its frames
            made.clear()
            interrupts += 1
            assert loop.run_until_complete(ask(PATIENCE)) == [absent] * CALLS, interrupts
        assert interrupts > 50
        assert set(blamed) <= {FailureKind.NONE}
        loop.run_until_complete(backend.aclose())


SWEEPING = ("sweep", "_sweep", "_watch", "_expire", "_settle_late", "_check_stall", "_is_excused")
SHORT = 0.1  # seconds for a call that is late


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [Interrupt, SoftInterrupt])
def test_later_calls_still_time_out(kind, make_memcached, monkeypatch):
    """Whatever a signal breaks off while late calls are settled, no call waits for ever."""
    made = []

    class Recorded(kind):
        def __init__(self):
            made.append(self)

    monkeypatch.setattr("interrupting.Interrupt", Recorded)
    server = make_memcached()
    backend = Memcached().asyncio(Node(server.url), BackendOptions(call_timeout=SHORT))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    calls = set()

    async def ask(patience):
        deadline = time.monotonic() + SHORT
        calls.update(backend.execute(Get(b"absent"), deadline) for _ in range(CALLS))
        await asyncio.wait(calls, timeout=patience)

    def expire():
        calls.clear()
        loop.run_until_complete(ask(2 * SHORT))
        if made:
            raise made.pop()

    with contextlib.closing(loop):
        loop.run_until_complete(ask(TURN))
        server.pause()
        interrupts = 0
        for _ in interrupted(expire, is_late_step):
            interrupts += 1
            loop.run_until_complete(ask(10))
            assert all(call.done() for call in calls), interrupts
        assert interrupts > 10
        server.resume()
        loop.run_until_complete(backend.aclose())


def is_late_step(code):
    """Return whether the function settles late calls."""
    return "shardcache/backends" in code.co_filename and code.co_name in SWEEPING


def test_a_dial_that_an_interrupt_ends_is_no_fault_of_the_node(memcached_servers, monkeypatch):
    """Its calls are late. The node is asked again at once, and answers."""

    async def interrupted(*_):
        raise SoftInterrupt

    async def use():
        async with AsyncClient(memcached_servers[0].url, timeout=0.2) as client:
            with monkeypatch.context() as patch:
                patch.setattr(Channel, "_connect", interrupted)
                assert not await client.set("k", 1)
            assert not client.ejected
            assert await client.set("k", 1)

    asyncio.run(use())
