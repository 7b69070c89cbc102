"""What operators and observers see of calls that a stand-in answers."""

from __future__ import annotations

import pytest

from operations.failover_harness import FailoverHarness
from operations.harness import EventLog, closing
from shardcache.core.commands import (
    Acquire,
    Cas,
    CommandList,
    CompareAndExpire,
    Delete,
    Get,
    GetOrStub,
    Renew,
    Set,
    SetMany,
    Touch,
    with_ttl,
)
from shardcache.core.events import CallDetoured, CallFinished, KeysAccessed, NodeFailed
from shardcache.core.reserved_keys import DETOURED
from shardcache.operations.cluster.failover import with_ttl_cap

KEYS = [f"k{number}" for number in range(40)]
ONE = (0, b"1")


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(FailoverHarness)


@pytest.fixture
def harness(make_harness):
    """Return three nodes, the first of which is killed and ejected, with its keys in `mine`."""
    made = make_harness()
    made.mine = made.keys_of(0, 6)
    made.kill(0)
    return made


class TestCounting:
    """What operators see of a detour."""

    def test_hits_and_misses_are_of_the_node_that_answers(self, harness):
        """One key or many; those of the ejected node do not move."""
        one, two, *_ = harness.mine
        figures = harness.cluster.counters_of
        harness.store(b"v", key=one)
        before = figures(harness.members[0])
        harness.get(one)
        harness.get(two)
        harness.get_many(one, two)
        others = [figures(member) for member in harness.members[1:]]
        assert sum(each["hits"] for each in others) == 2
        assert sum(each["misses"] for each in others) == 2
        after = figures(harness.members[0])
        assert (after["hits"], after["misses"]) == (before["hits"], before["misses"])
        calls = 2 + len({harness.owner(one), harness.owner(two)})
        assert after["detoured_calls"] == before["detoured_calls"] + calls
        assert after["errors"] == before["errors"]

    def test_undecodable_bytes_too(self, harness):
        """They are the stand-in's."""
        key = harness.mine[0]
        _, stand_in, _ = harness.cluster.route(key)
        stand_in.backend.store.execute(Set(DETOURED + key.encode(), (99, b"?")))
        assert harness.get(key) is None
        assert harness.cluster.counters_of(stand_in.member)["decode_failures"] == 1

    def test_they_outlast_a_change_of_nodes(self, harness):
        """What a stand-in has counted is kept when its owner leaves, and counted once."""
        harness.store("v", key=harness.mine[0])
        harness.get(harness.mine[0])
        cluster = harness.cluster
        pairs = list(cluster.failover._stand_ins)
        cluster.with_nodes(cluster.topology, cluster.members)
        assert list(cluster.failover._stand_ins) == pairs
        others = {name: each for name, each in cluster.members.items() if name != "n0"}
        changed = cluster.with_nodes(cluster.topology.removing("n0"), others)
        assert sum(changed.counters_of(each)["hits"] for each in others.values()) == 1
        assert sum(each.hits for each in others.values()) == 1
        cluster.failover._retire(pairs[0])  # as another thread does at the same moment
        assert sum(each.hits for each in others.values()) == 1

    def test_without_a_failover_they_are_the_members_own(self, harness):
        """As they are of a client that has none."""
        harness.cluster.use_failover(None)
        for member in harness.members:
            assert harness.cluster.counters_of(member) == member.counters()
        assert harness.cluster.reachable == harness.members

    @pytest.mark.parametrize("clearable", [False, True])
    def test_observers_see_the_callers_names(self, make_harness, clearable):
        """A detour is an event of its own; the call is one of the node that answers."""
        log = EventLog(CallDetoured, CallFinished, KeysAccessed, NodeFailed)
        harness = make_harness(3, log=log, clearable=clearable)
        key = next(key for key in KEYS if harness.order(key) == [0, 1, 2])
        first, second, _ = harness.members
        harness.get(key)  # a clearable client looks at its generation first
        harness.kill(0)
        log.events.clear()
        harness.store("v", 7.0, key=key)
        detoured, accessed, *_ = sorted(
            (each for each in log.events if not isinstance(each, CallFinished)),
            key=lambda each: type(each).__name__,
        )
        assert detoured == CallDetoured("set", first.node, second.node, 1)
        assert (accessed.node, accessed.ttl) == (second.node, 7.0)
        assert list(accessed.keys) == [key.encode()]
        assert log.of(NodeFailed) == []
        assert log.of(CallFinished)[0].node is second.node

    def test_a_line_a_minute_reminds_of_the_node(self, harness):
        """Although no call fails."""
        told = []
        harness.cluster.note_refused = lambda member, error: told.append((member, error))
        harness.get(harness.mine[0])
        assert told == [(harness.members[0], harness.members[0].health.error)]


@pytest.mark.parametrize(
    "command",
    [
        Set(b"k", ONE, 30.0),
        SetMany([(b"k", ONE)], 30.0),
        Cas(b"k", ONE, None, 30.0),
        Touch(b"k", 30.0),
        CommandList([Set(b"k", ONE, 30.0), Delete(b"l")]),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_cap_shortens_the_life_of_values(command):
    """A shorter ttl stays."""
    assert with_ttl_cap(command, 5.0) == with_ttl(command, 5.0)
    assert with_ttl_cap(command, 60.0) == command
    assert with_ttl_cap(with_ttl(command, None), 5.0) == with_ttl(command, 5.0)


@pytest.mark.parametrize(
    "command",
    [
        GetOrStub(b"k", b"mark", 30.0),
        Renew(b"k", b"mark", None, 30.0),
        Acquire(b"k", ONE, 30.0),
        CompareAndExpire(b"k", ONE, 30.0),
        Get(b"k"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_cap_leaves_stubs_and_locks_the_ttl_of_their_owner(command):
    """They end by themselves."""
    assert with_ttl_cap(command, 5.0) == command
