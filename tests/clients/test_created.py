"""`ClientCreated` hands observers the client, and `counters().pools` its connections."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from shardcache import AsyncClient, CallFinished, Client, Observer
from shardcache.core.pools import PoolUse
from shardcache.operations.cluster import cluster as cluster_module
from shardcache.plugin.manager import Plugins
from shardcache.testing.driving import make_client


class Clients(Observer):
    """An observer that keeps clients weakly, and calls for as long as they last."""

    def __init__(self):
        self.clients = []
        self.calls = []

    def client_created(self, event):
        """Keep the client, and read its counters."""
        assert event.client.counters().protection["hits"] == 0
        self.clients.append(weakref.ref(event.client))

    def call_finished(self, event: CallFinished):
        """Keep the event."""
        self.calls.append(event)


def test_an_observer_hears_of_its_client(mode):
    """Once, before any call; a view is no other client, and the event keeps no client alive."""
    observer = Clients()
    client = make_client(mode, "memory://a", observers=[observer])
    view = client.view(namespace="v")
    (kept,) = observer.clients
    assert kept() is getattr(client, "twin", client)
    client.close()
    del client, view
    gc.collect()
    assert kept() is None


def test_a_call_tells_its_keys_and_when_it_began(mode):
    """One start for all nodes of a call; a command about a whole node has no keys."""
    observer = Clients()
    client = make_client(mode, ["memory://a", "memory://b"], observers=[observer])
    client.set_many({f"k{number}": number for number in range(20)})
    first, second = observer.calls
    assert first.keys + second.keys == 20
    assert first.started == second.started > 0
    client.get("k1")
    assert (observer.calls[-1].keys, observer.calls[-1].started > first.started) == (1, True)
    client.ping()
    assert observer.calls[-1].keys == 0
    client.close()


def test_without_observers_no_event_is_built(mode, monkeypatch):
    """Not even for a node that fails, so what a call pays for is one truth test."""
    built = []
    monkeypatch.setattr(Plugins, "observers", lambda *_: ())  # a plugin may be installed
    for name in ("CallFinished", "KeysAccessed", "NodeFailed", "hits_and_misses", "keys_of"):
        monkeypatch.setattr(cluster_module, name, lambda *args, **_: built.append(args))
    client = make_client(mode, ["memory://a", "memcached://127.0.0.1:1"])
    client.set_many({f"k{number}": number for number in range(20)})
    client.get_many([f"k{number}" for number in range(20)])
    assert client.ejected
    assert client.get_or_set("k", lambda: 1, ttl=60) == 1
    assert built == []
    client.close()


@pytest.mark.parametrize("scheme", ["memcached", "pymemcache", "redis"])
def test_open_connections_are_counted(mode, scheme, memcached_servers, redis_servers):
    """One after a call, at rest; an asyncio client of wires has no bound."""
    server = redis_servers[0] if scheme == "redis" else memcached_servers[0]
    url = f"{scheme}://{server.host}:{server.port}"
    client = make_client(mode, url, pool_size=5)
    (name,) = client.counters()
    assert client.counters().pools[name].open == 0
    client.set("k", 1)
    size = None if mode == "asyncio" and scheme != "pymemcache" else 5
    assert client.counters().pools == {name: PoolUse(1, 0, size)}
    client.close()


def test_a_connection_in_use_is_busy(memcached_servers):
    """While a thread has it, it is not idle."""
    with Client(memcached_servers[0].url) as client:
        client.set("k", 1)
        (member,) = client._cluster.members.values()
        held = member.backend.pool.get_idle()
        assert client.counters().pools[member.node.name] == PoolUse(1, 1, 32)
        member.backend.pool.put(held)
        assert client.counters().pools[member.node.name] == PoolUse(1, 0, 32)


async def test_a_connection_that_waits_for_a_reply_is_busy(memcached_servers):
    """A call in flight on an event loop makes it so."""
    async with AsyncClient(memcached_servers[0].url) as client:
        await client.set("k", 1)
        (name,) = client.counters()
        call = asyncio.ensure_future(client.get("k"))
        await asyncio.sleep(0)
        assert client.counters().pools[name] == PoolUse(1, 1)
        assert await call == 1
        assert client.counters().pools[name] == PoolUse(1, 0)
