"""Tasks ask through pymemcache, whose calls block."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.pymemcache import backend as backend_module
from shardcache.core.commands import Get, Incr, Ping, Set, SetMany
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import INTEGER_FLAGS
from shardcache.errors import NodeTimeoutError


async def test_tasks_share_a_node(memcached_servers):
    """Hundreds of calls at once get each its own value, over a bounded number of connections."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=4))
    deadline = time.monotonic() + 20
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(300)]
    assert await backend.execute(SetMany(items), deadline) == [True] * len(items)
    replies = await asyncio.gather(*(backend.execute(Get(key), deadline) for key, _ in items))
    assert replies == [payload for _, payload in items]
    assert backend._blocking.pool.open <= 4
    await backend.aclose()
    assert backend._blocking.pool.open == 0
    assert await backend.execute(Get(b"k1"), deadline) == (INTEGER_FLAGS, b"1")
    await backend.aclose()


async def test_cancelling_mixes_up_no_replies(memcached_servers):
    """A cancelled call discards its own reply, and the next gets its own."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=2))
    deadline = time.monotonic() + 20
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(100)]
    troubles = []
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
    await backend.execute(SetMany(items), deadline)
    for number, (key, payload) in enumerate(items):
        cancelled = backend.execute(Get(b"k0"), deadline)
        if number % 2:
            await asyncio.sleep(0)
        cancelled.cancel()
        assert await backend.execute(Get(key), deadline) == payload
    await backend.aclose()
    assert troubles == []


async def test_a_call_cancelled_before_it_has_a_thread_is_not_sent(make_memcached):
    """It changes nothing on the node."""
    server = make_memcached()
    node = Node(server.url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=1))
    deadline = time.monotonic() + 20
    await backend.execute(Set(b"n", (INTEGER_FLAGS, b"1")), deadline)
    server.pause()
    first = backend.execute(Get(b"n"), deadline)
    backend.execute(Incr(b"n", 1), deadline).cancel()
    server.resume()
    await first
    assert await backend.execute(Get(b"n"), deadline) == (INTEGER_FLAGS, b"1")
    await backend.aclose()


async def test_a_stopped_node_times_out_in_tasks(make_memcached):
    """A call ends at its deadline, also one that found no thread free."""
    server = make_memcached()
    node = Node(server.url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=2))
    server.pause()
    calls = [backend.execute(Get(b"k"), time.monotonic() + 0.2) for _ in range(10)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(reply, NodeTimeoutError) for reply in replies)
    server.resume()
    assert await backend.execute(Get(b"k"), time.monotonic() + 10) is None
    await backend.aclose()


def test_loops_one_after_another(memcached_servers):
    """A backend outlives the loop that used it first, with calls of it in flight."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions())

    async def run():
        backend.execute(Get(b"unread"), time.monotonic() + 5)
        return await backend.execute(Ping(), time.monotonic() + 5)

    assert [asyncio.run(run()) for _ in range(3)] == [True] * 3
    asyncio.run(backend.aclose())


def test_the_exit_waits_for_no_stopped_node(make_memcached):
    """A program with a call in flight ends at once and prints nothing."""
    server = make_memcached()
    server.pause()
    program = f"""
import time
from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.pymemcache import backend as backend_module
from shardcache.core.commands import Get
from shardcache.core.placement.nodes import Node
backend = Pymemcache().blocking(Node({server.url.replace("memcached", "pymemcache")!r}), BackendOptions())
exchange = backend.begin(Get(b"k"), time.monotonic() + 60)
time.sleep(0.1)
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, timeout=30, capture_output=True
    )
    assert ended.stderr == b""


async def test_a_reply_that_an_interrupt_has_lost_comes_at_the_deadline(
    memcached_servers, monkeypatch
):
    """It is no timeout, for which the node would be blamed."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=1))
    await backend.execute(Set(b"n", (INTEGER_FLAGS, b"1")), time.monotonic() + 20)
    settle, lost = backend_module._settle, []

    def lose_one(future, reply):
        if lost:
            settle(future, reply)
        lost.append(reply)

    monkeypatch.setattr(backend_module, "_settle", lose_one)
    assert await backend.execute(Get(b"n"), time.monotonic() + 0.5) == lost[0] is not None
    await backend.aclose()
