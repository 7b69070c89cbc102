"""Closing a client, or removing a node, waits for nodes that answer and not for silent ones."""

from __future__ import annotations

import asyncio
import time

import pytest

from backends.fakes import fake_node, token_of
from shardcache import AsyncClient, NodeTimeoutError
from shardcache.testing import FaultProxy

SOON = 10.0  # seconds; a call has a minute
SCHEMES = ["memcached", "redis", "pymemcache"]


@pytest.fixture(params=SCHEMES)
def urls(request, make_memcached, make_redis):
    """Return two nodes of which the second is stopped once it has been asked."""
    start = make_redis if request.param == "redis" else make_memcached
    servers = [start() for _ in range(2)]
    yield [f"{request.param}://{server.host}:{server.port}" for server in servers], servers[1]
    servers[1].resume()


def begun(client):
    """Begin calls of several kinds; give their tasks."""
    keys = [f"k{number}" for number in range(20)]
    calls = [client.get_many(keys), client.set_many(dict.fromkeys(keys, 2))]
    calls += [client.get(key, "late") for key in keys]
    calls += [client.get_or_set(key, lambda: "computed", ttl=60) for key in ("a", "b", "c", "d")]
    return [asyncio.ensure_future(call) for call in calls]


async def test_closing_does_not_wait_for_a_stopped_node(urls):
    """Its calls end, those of the other node are answered, and nothing is left behind."""
    nodes, server = urls
    client = AsyncClient(nodes, timeout=60)
    await client.set_many({f"k{number}": 1 for number in range(20)})
    server.pause()
    calls = begun(client)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await client.aclose()
    assert time.monotonic() - began < SOON
    found, *_ = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SOON)
    assert 0 < len(found) < 20
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_removing_a_stopped_node_does_not_wait_for_it(urls):
    """Its unanswered calls do not count against it."""
    nodes, server = urls
    async with AsyncClient(nodes, timeout=60, on_error="raise") as client:
        await client.set_many({f"k{number}": 1 for number in range(20)})
        server.pause()
        calls = [asyncio.ensure_future(client.get(f"k{number}")) for number in range(20)]
        await asyncio.sleep(0.1)
        member = client._cluster.members[client.nodes[1].name]
        began = time.monotonic()
        await client.remove_node(client.nodes[1].name)
        assert time.monotonic() - began < SOON
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {int, NodeTimeoutError}
        assert not member.health.ejected


@pytest.mark.parametrize("scheme", ["memcached", "redis"])
async def test_closing_does_not_wait_for_a_dial(scheme, memcached_servers, redis_servers):
    """A node that cannot be reached is as silent as a stopped one."""
    server = {"memcached": memcached_servers, "redis": redis_servers}[scheme][0]
    with FaultProxy(server.url) as proxy:
        proxy.blackhole(dials=True)
        client = AsyncClient(proxy.url, timeout=60)
        call = asyncio.ensure_future(client.get("k", "late"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await client.aclose()
        assert time.monotonic() - began < SOON
        assert await call == "late"


async def test_a_lock_on_a_stopped_node_is_left_to_expire(make_redis):
    """The close does not wait for its release."""
    server = make_redis()
    client = AsyncClient(server.url, timeout=60)
    held = asyncio.Event()

    async def hold():
        async with client.lock("k", ttl=100):
            held.set()
            await asyncio.sleep(60)

    holder = asyncio.ensure_future(hold())
    await asyncio.wait_for(held.wait(), SOON)
    server.pause()
    holder.cancel()
    await asyncio.sleep(0.1)
    holder.cancel()  # out of the release as well
    began = time.monotonic()
    await client.aclose()
    assert time.monotonic() - began < SOON
    await asyncio.wait((holder,), timeout=SOON)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    server.resume()


async def test_closing_waits_while_bytes_arrive():
    """A slow reply that keeps arriving is read to its end."""
    size = 20_000

    def behave(connection, _):
        request = connection.recv(65_536)
        connection.sendall(b"VA %d f0 %s\r\n" % (size, token_of(request)))
        for _ in range(20):  # two seconds in all
            time.sleep(0.1)
            connection.sendall(b"x" * (size // 20))
        connection.sendall(b"\r\n")

    with fake_node(behave) as address:
        client = AsyncClient(f"memcached://{address}", timeout=60)
        call = asyncio.ensure_future(client.get("k"))
        await asyncio.sleep(0.1)
        await client.aclose()
        assert await call == b"x" * size
