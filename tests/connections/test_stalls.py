"""A reply that stalls on asyncio's one connection costs what waits behind it, and nothing later."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from connections.fakes import fake_node, token_of
from shardcache import AsyncClient, NodeTimeoutError, NodeUnavailableError
from shardcache.backends.base import BackendOptions
from shardcache.backends.redis import Redis
from shardcache.core.commands import Get
from shardcache.core.placement.nodes import Node
from shardcache.testing import FaultProxy

TIMEOUT = 1.0


@pytest.fixture(params=["memcached", "redis"])
def proxy(request, memcached_servers, redis_servers):
    """Give a proxy to a server."""
    servers = {"memcached": memcached_servers, "redis": redis_servers}[request.param]
    with FaultProxy(servers[0].url) as proxy:
        yield proxy


def backend_of(client):
    """Give the backend of a client's only node."""
    return next(iter(client._cluster.members.values())).backend


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 8])
async def test_the_call_after_a_stall_is_answered(proxy, size):
    """Over a new connection, however much of the reply had come; nothing is ejected."""
    async with AsyncClient(proxy.url, timeout=TIMEOUT) as client:
        for number in range(3):
            await client.set("k", f"value {number}")
            proxy.cut_after(size, "stall", connections=1)
            late = await asyncio.gather(*(client.get("k", "late") for _ in range(2)))
            assert late == ["late", "late"]
            assert await client.get("k") == f"value {number}"
            assert not client.ejected
        assert backend_of(client).dialed == 4


async def test_a_stalled_connection_is_closed_once_nobody_waits_on_it(proxy):
    """A client that goes on has one connection."""
    async with AsyncClient(proxy.url, timeout=0.3) as client:
        await client.set("k", 1)
        proxy.cut_after(0, "stall", connections=1)
        assert await client.get("k") is None
        assert backend_of(client)._channels == {}
        assert backend_of(client)._stalled == set()


class Held:
    """A node that answers at once; on its first connection, from the second time on, when told to."""

    def __init__(self):
        self.answers = threading.Event()
        self.closed = threading.Event()

    def behave(self, connection, number):
        """Answer each `GET` of Redis with the name of its key."""
        while request := connection.recv(65_536):
            if number == 0 and b"warm" not in request:
                self.answers.wait(60)
            keys = request.split(b"\r\n")[4::5]
            connection.sendall(b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in keys))
        if number == 0:
            self.closed.set()


@pytest.fixture
async def held():
    """Give such a node and its backend."""
    node = Held()
    with fake_node(node.behave) as address:
        options = BackendOptions(call_timeout=0.3, connect_timeout=20)
        backend = Redis().asyncio(Node(f"redis://{address}"), options)
        yield node, backend
        node.answers.set()
        await backend.aclose()


async def stalled(backend):
    """Have a call be late, and another wait behind it on the same connection; give the latter."""
    await backend.execute(Get(b"warm"), time.monotonic() + 60)
    now = time.monotonic()
    late = backend.execute(Get(b"late"), now + 0.3)
    behind = backend.execute(Get(b"behind"), now + 60)
    with pytest.raises(NodeTimeoutError):
        await late
    return behind


async def test_each_reply_is_its_own_calls(held):
    """Those who wait on the old connection have its replies, and later calls those of the new one."""
    node, backend = held
    behind = await stalled(backend)
    later = [backend.execute(Get(b"%d" % number), time.monotonic() + 60) for number in range(20)]
    replies = [stored for _, stored in await asyncio.gather(*later)]
    assert replies == [b"%d" % number for number in range(20)]
    assert not behind.done()
    node.answers.set()
    assert (await behind)[1] == b"behind"
    assert (await backend.execute(Get(b"last"), time.monotonic() + 60))[1] == b"last"
    assert await asyncio.to_thread(node.closed.wait, 20)
    assert backend.dialed == 2


async def test_an_ejection_sends_away_those_on_the_old_connection(held):
    """They would wait for a node that is out."""
    node, backend = held
    behind = await stalled(backend)
    backend.eject()
    with pytest.raises(NodeUnavailableError, match="ejected"):
        await behind
    node.answers.set()
    assert await asyncio.to_thread(node.closed.wait, 20)


async def test_closing_waits_for_those_on_the_old_connection(held):
    """Until they are answered."""
    node, backend = held
    behind = await stalled(backend)
    closing = asyncio.create_task(backend.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    node.answers.set()
    await closing
    assert (await behind)[1] == b"behind"


async def test_a_reply_that_flows_is_not_cut():
    """Although it is late, and others wait behind it: they have the same connection."""
    size, served = 400_000, []

    def behave(connection, number):
        served.append(number)
        while request := connection.recv(65_536):
            for line in request.splitlines():
                if b"big" not in line:
                    connection.sendall(b"EN %s\r\n" % token_of(line + b"\r\n"))
                    continue
                connection.sendall(b"VA %d f0 %s\r\n" % (size, token_of(line + b"\r\n")))
                for _ in range(100):  # three seconds in all
                    connection.sendall(b"x" * (size // 100))
                    time.sleep(0.03)
                connection.sendall(b"\r\n")

    with fake_node(behave) as address:
        async with AsyncClient(f"memcached://{address}", timeout=1.0) as client:
            await client.get("small")
            big = asyncio.create_task(client.get("big"))
            await asyncio.sleep(0)
            for _ in range(2):
                await client.get("small")
            await big
            assert not client.ejected
    assert served == [0]


@pytest.mark.parametrize("tasks", [1, 50])
async def test_a_stopped_server_is_dialed_a_few_times(make_memcached, make_redis, tasks):
    """And ejected after as many silent calls as ever."""
    for start in (make_memcached, make_redis):
        server = start()
        async with AsyncClient(server.url, timeout=0.3) as client:
            await client.set("k", 1)
            server.pause()

            async def ask(client=client):
                for _ in range(10):
                    await client.get("k")
                    await asyncio.sleep(0.01)

            await asyncio.gather(*(ask() for _ in range(tasks)))
            assert client.ejected
            assert backend_of(client).dialed <= 3
            server.resume()


async def test_a_connection_that_was_looked_at_is_held_while_it_owes_a_reply(held):
    """As when a server has sent what is no reply, a TLS ticket: finalizers may wait for theirs."""
    node, backend = held
    await backend.execute(Get(b"warm"), time.monotonic() + 60)
    channel = backend._channels[asyncio.get_running_loop()]

    class Ready:
        """Says that there is something to read."""

        def poll(self, _):
            return [(0, 1)]

    channel._poll = Ready()
    channel._last_used -= 1
    call = backend.execute(Get(b"k"), time.monotonic() + 60)
    assert channel._ear.channel is channel
    node.answers.set()
    assert (await call)[1] == b"k"
    assert channel._ear.channel is None
