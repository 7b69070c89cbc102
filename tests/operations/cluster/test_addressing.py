"""The two doors of a cluster: a key's commands may take a detour, a node's own never do."""

from __future__ import annotations

import pytest

from shardcache import KEEP, Client
from shardcache.operations.cluster.cluster import Cluster

KEYS = [f"k{number}" for number in range(20)]


class Detouring(Cluster):
    """A cluster that records the commands that a failover could send elsewhere."""

    __slots__ = ()
    sent: list[object]

    async def ask(self, member, command, deadline=None):
        """Record a command of a key."""
        type(self).sent.append(command)
        return await super().ask(member, command, deadline)

    async def ask_timed(self, asks, deadline=None, enough=None, *, ejected_too=False):
        """Record commands of keys, unless they are for a node that may be ejected."""
        type(self).sent += [command for _, command in asks if not ejected_too]
        return await super().ask_timed(asks, deadline, enough, ejected_too=ejected_too)


@pytest.fixture
def client():
    """Return a client of three nodes whose cluster records what could take a detour."""
    with Client(["memory://a", "memory://b", "memory://c"]) as client:
        Detouring.sent = []
        client._cluster.__class__ = Detouring
        client._cluster.use_io(client._cluster.io)
        yield client


def take_a_lock(client):
    """Acquire, extend, query and release a lock."""
    with client.lock("job", ttl=30) as lease:
        lease.extend(60)
        assert client.lock("job").held()


def begin_a_generation(client):
    """Invalidate all values of a function."""

    @client.cached(ttl=60, namespace="f")
    def function():
        return 1

    assert function.invalidate_all()


@pytest.mark.parametrize(
    "act",
    [
        take_a_lock,
        begin_a_generation,
        lambda client: client.ping(),
        lambda client: client.stats(),
        lambda client: client.check(),
        lambda client: client.flush_all(),
        lambda client: client.flush_node("a"),
    ],
    ids=["lock", "generation", "ping", "stats", "check", "flush_all", "flush_node"],
)
def test_commands_about_nodes_take_no_detour(client, act):
    """A vote, a generation or a flush on another node than the one asked would be void."""
    act(client)
    assert Detouring.sent == []


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.set("k", 1),
        lambda client: client.get("k"),
        lambda client: client.cas("k", 1, 7),
        lambda client: client.cas("k", 1, 7, ttl=KEEP),
        lambda client: client.exists("k"),
        lambda client: client.ttl("k"),
        lambda client: client.touch("k", 60),
        lambda client: client.delete("k"),
        lambda client: client.incr("k", initial=1),
        lambda client: client.decr("k", initial=1, floor=None),
        lambda client: client.get_many(KEYS),
        lambda client: client.set_many(dict.fromkeys(KEYS, 1)),
        lambda client: client.delete_many(KEYS),
        lambda client: client.get_or_set("k", lambda: 1, 60, tags=["t"]),
        lambda client: client.invalidate_tag("t"),
    ],
    ids=[
        *("set", "get", "cas", "keep", "exists", "ttl", "touch", "delete", "incr", "decr"),
        *("get_many", "set_many", "delete_many", "get_or_set", "tag"),
    ],
)
def test_commands_about_keys_may_take_one(client, act):
    """Each command of a key passes the door that a failover will replace."""
    calls = sum(figures["calls"] for figures in client.counters().values())
    act(client)
    done = sum(figures["calls"] for figures in client.counters().values()) - calls
    assert len(Detouring.sent) == done > 0
