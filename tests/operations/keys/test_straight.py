"""The straight way of the usual call: what it does by itself, and what it leaves to the general way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from operations.harness import EventLog
from shardcache import AsyncClient, CallFinished, Client
from shardcache.core.commands import COUNTER_MAX, Delete, Get, Set
from shardcache.core.lifetimes import DEFAULT
from shardcache.errors import NodeRefusedError, NodeTimeoutError, NodeUnavailableError
from shardcache.operations.keys import straight


class Node:
    """A blocking backend that notes what it is asked, and may fail."""

    def __init__(self, backend):
        self.backend = backend
        self.asked = []
        self.failure = None

    def execute(self, command, deadline):
        """Raise or return the failure, once, or do the command."""
        self.asked.append(type(command))
        failure, self.failure = self.failure, None
        if isinstance(failure, NodeRefusedError):
            return failure
        if failure is not None:
            raise failure
        return self.backend.execute(command, deadline)

    def get_straight(self, key, began, seconds):
        """Read one key, as a `SocketBackend` does."""
        return self.execute(Get(key), began + seconds)

    def __getattr__(self, name):
        return getattr(self.backend, name)


@pytest.fixture(params=["miss", "raise"])
def client(request):
    """Return a client of one node, whose backend is a `Node`."""
    with Client("memory://a", on_error=request.param) as client:
        (member,) = client._cluster.members.values()
        member.backend = Node(member.backend)
        member.get_straight = member.backend.get_straight
        yield client


def figures(client):
    """Return the counters of the node."""
    (counted,) = client.counters().values()
    return [counted[name] for name in ("calls", "hits", "misses", "errors")]


def node_of(client):
    """Return the node's backend."""
    (member,) = client._cluster.members.values()
    return member.backend


def calls_in(log):
    """Return the command of each call that an observer heard of, with its hits and misses."""
    return [(event.command, event.hits, event.misses) for event in log.events]


def fail(client, call, result):
    """Make the next call fail; return whether its caller sees what `on_error` says."""
    node_of(client).failure = NodeTimeoutError("late", "a")
    if client._cluster.raises:
        with pytest.raises(NodeTimeoutError):
            call()
        return True
    return call() == result


def test_one_command_a_call(client):
    """A hit, a miss, a store, a counter and a delete."""
    assert client.get("k", "d") == "d"
    assert client.set("k", 7, 60) is True
    assert client.get("k") == 7
    assert client.incr("k", 2) == 9
    assert client.incr("none") is None
    assert client.delete("k") is True
    assert client.delete("k") is False
    assert len(node_of(client).asked) == 7
    assert figures(client) == [7, 1, 1, 0]


def test_a_failure_is_counted_and_is_a_miss_or_raised(client):
    """Of every call."""
    client.set("k", 7, 60)
    assert fail(client, lambda: client.get("k", "d"), "d")
    assert fail(client, lambda: client.set("k", 8, 60), result=False)
    assert figures(client)[3] == 2


def test_failures_of_writes_are_noted(client):
    """Their keys may have old values: the general way notes them."""
    assert fail(client, lambda: client.delete("k"), result=False)
    assert fail(client, lambda: client.incr("k"), None)
    (counted,) = client.counters().values()
    assert counted["pending_deletes"] == 1


def test_a_refused_store_drops_the_old_value(client):
    """As by the general way."""
    client.set("k", 7, 60)
    node_of(client).failure = NodeRefusedError("out of memory", "a")
    if client._cluster.raises:
        with pytest.raises(NodeRefusedError):
            client.set("k", 8, 60)
    else:
        assert client.set("k", 8, 60) is False
    assert node_of(client).asked[-2:] == [Set, Delete]
    assert client.get("k") is None


def test_a_ttl_of_zero_deletes(client):
    """It is no store."""
    client.set("k", 7, 60)
    assert client.set("k", 8, 0) is True
    assert node_of(client).asked[-1] is Delete


def test_an_ejected_node_is_not_asked(client):
    """The general way refuses the call, or sends it elsewhere."""
    client.set("k", 7, 60)
    (member,) = client._cluster.members.values()
    member.health.eject(NodeUnavailableError("refused", "a"), 0.0, 0.5)
    asked = len(node_of(client).asked)
    for call, result in (
        (lambda: client.get("k", "d"), "d"),
        (lambda: client.set("k", 8), False),
        (lambda: client.delete("k"), False),
        (lambda: client.incr("k"), None),
    ):
        if client._cluster.raises:
            with pytest.raises(NodeUnavailableError):
                call()
        else:
            assert call() == result
    assert len(node_of(client).asked) == asked
    assert member.refused == member.spared == 4


def test_the_replies_of_a_watched_node_are_looked_at(client):
    """A node with pending deletes: a write that was done is noted, a read is counted."""
    (member,) = client._cluster.members.values()
    member.health.watched = True
    noted = []
    ejector = client._cluster.ejector
    client._cluster.ejector = SimpleNamespace(
        note_writes=lambda _member, command, _reply: noted.append(command)
    )
    assert client.set("k", 7, 60) is True
    assert client.get("k") == 7
    client._cluster.ejector = ejector
    assert [type(command) for command in noted] == [Set, Get]
    assert figures(client)[:2] == [2, 1]


def test_calls_are_observed():
    """A read, a write, and the read of a cached value."""
    log = EventLog(CallFinished)
    with Client("memory://a", observers=[log]) as client:
        (member,) = client._cluster.members.values()
        member.backend = Node(member.backend)
        member.get_straight = member.backend.get_straight
        assert client._cluster.straight
        assert client.set("k", 7, 60) is True
        assert client.get("k") == 7
        assert client.get_or_set("k", lambda: 8, ttl=60) == 7
    assert calls_in(log) == [("set", 0, 0), ("get", 1, 0), ("get", 1, 0)]


def test_a_node_without_a_straight_way_is_read_by_the_general_one():
    """Such as a memory node."""
    with Client("memory://a") as client:
        client.set("k", 7)
        assert client._cluster.straight
        assert client.get("k") == 7


@pytest.mark.parametrize(
    ("call", "usual"),
    [
        ((1, None, DEFAULT, 0), True),
        ((0, None, DEFAULT, 0), True),
        ((COUNTER_MAX, None, DEFAULT, 0), True),
        ((COUNTER_MAX + 1, None, DEFAULT, 0), False),
        ((-1, None, DEFAULT, 0), False),
        ((True, None, DEFAULT, 0), False),
        ((1, 0, DEFAULT, 0), False),
        ((1, None, None, 0), False),
        ((1, None, DEFAULT, None), False),
        ((1, None, DEFAULT, False), False),
    ],
)
def test_only_the_usual_count_is_straight(call, usual):
    """All others are checked by the general way."""
    assert straight.counts(*call) is usual


def test_an_awaited_get_is_observed():
    """As one that blocks is."""
    log = EventLog(CallFinished)

    async def main():
        async with AsyncClient("memory://a", observers=[log]) as client:
            await client.set("k", 7, 60)
            return await client.get("k")

    assert asyncio.run(main()) == 7
    assert calls_in(log) == [("set", 0, 0), ("get", 1, 0)]


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_an_awaited_get_does_the_same(on_error):
    """A hit, a miss, a failure, an ejected node and a watched one."""

    async def main():
        async with AsyncClient("memory://a", on_error=on_error) as client:
            cluster = client._cluster
            (member,) = cluster.members.values()
            assert cluster.straight
            await client.set("k", 7, 60)
            assert await client.get("k") == 7
            assert await client.get("none", "d") == "d"
            member.health.watched = True
            assert await client.get("k") == 7
            member.health.watched = False
            backend = member.backend
            member.backend = SimpleNamespace(execute=late)
            await failing(client, NodeTimeoutError)
            member.backend = backend
            member.health.eject(NodeUnavailableError("refused", "a"), 0.0, 0.5)
            await failing(client, NodeUnavailableError)
            (counted,) = client.counters().values()
            assert (counted["hits"], counted["refused_calls"]) == (2, 1)
            return counted["errors"]

    def late(_command, _deadline):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(NodeTimeoutError("late", "a"))
        return future

    async def failing(client, error):
        if on_error == "raise":
            with pytest.raises(error):
                await client.get("k")
        else:
            assert await client.get("k", "d") == "d"

    assert asyncio.run(main()) == 2
