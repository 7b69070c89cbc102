"""A cluster whose nodes are asked for no key."""

from __future__ import annotations

import pytest

from operations import virtual
from operations.virtual import LoopHarness
from shardcache.core.commands import Get, Ping, Set
from shardcache.errors import NodeUnavailableError
from shardcache.operations.cluster.disabled import DisabledCluster
from shardcache.operations.invalidation import clearing
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NO_VALUE


@pytest.fixture
def harness(monkeypatch):
    """Return a harness whose clients are disabled."""
    monkeypatch.setattr(virtual, "Cluster", DisabledCluster)
    harness = LoopHarness()
    yield harness
    harness.close()


def test_commands_about_keys_are_not_sent(harness):
    """Each is answered by the error of a node that is down, which is not raised or counted."""
    cluster = harness.clusters[0]
    name, member, _ = cluster.route("k")
    asks = [(member, Set(name, (0, b"v"), None)), (member, Get(name))]
    replies = [harness.loop.run(cluster.ask(*asks[0])), *harness.loop.run(cluster.ask_many(asks))]
    assert {type(reply) for reply in replies} == {NodeUnavailableError}
    assert [cluster.unwrap(reply, "default") for reply in replies] == ["default"] * 3
    assert member.backend._node.held(name) is None
    assert (member.answered, member.errors, member.refused) == (0, 0, 0)


def test_commands_about_nodes_are_sent(harness):
    """A ping, and the vote of a lock."""
    cluster = harness.clusters[0]
    member = cluster.members["n0"]
    assert not isinstance(harness.loop.run(cluster.ask_member(member, Ping())), Exception)
    harness.loop.run(cluster.ask_members([(member, Ping())]))
    assert member.answered == 2


def test_functions_are_called_each_time(harness):
    """Callers do not share a recompute; nothing is stored or counted."""
    assert harness.results([harness.start_call() for _ in range(3)]) == [0, 0, 0]
    assert harness.calls == 3
    request = harness.request(0)
    assert harness.loop.run(cached_value.put(request, 7)) is False
    assert harness.loop.run(cached_value.peek(request)) is NO_VALUE
    assert not any(harness.protections[0].counters.counts.values())


def test_a_clear_is_not_in_force(harness):
    """No node has been told."""
    cluster = harness.clusters[0]
    generations = Generations(cluster.keys)
    assert harness.loop.run(clearing.clear(cluster, generations)) is False
