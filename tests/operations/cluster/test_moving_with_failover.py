"""Keys that move while a node is ejected, and another stands in for it."""

from __future__ import annotations

import pytest

from operations.harness import closing
from operations.moving_harness import MovingHarness
from shardcache.core.commands import Get
from shardcache.operations.cluster.failover import Failover, StandIn

KEYS = [f"k{number}" for number in range(40)]


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, in which nothing goes on at the end."""
    yield from closing(MovingHarness)


@pytest.fixture
def harness(make_harness):
    """Return a harness that moves keys from two nodes to three, with failover, and holds some."""
    harness = make_harness(old=(0, 1), new=(0, 1, 2), kinds=(False,) * 3)
    cluster = harness.cluster
    cluster.use_failover(Failover(cluster.topology, cluster.members))
    for key in KEYS:
        harness.set(key.upper(), key)
    return harness


def eject(harness, node, process=0):
    """Kill a node, and have a process ask it until it is ejected."""
    harness.nodes[node].up = False
    cluster = harness.processes[process].cluster
    member = {**cluster.move.members, **cluster.members}[f"n{node}"]
    harness.run(cluster.ask_member(member, Get(b"any")), process)
    assert member.health.ejected


def moving_key(harness):
    """Return a key that moves from `n0` to `n2`."""
    return next(
        key
        for key in KEYS
        if harness.topologies[0].owner(key.encode()).name == "n0"
        and harness.topologies[1].owner(key.encode()).name == "n2"
    )


@pytest.mark.parametrize("step", ["switched", "announced"])
def test_a_delete_reaches_the_stand_in_of_another_process(make_harness, step):
    """A process that has switched, and one that has not, with the same node out: the other's."""
    harness = make_harness(old=(0, 1), new=(0, 1, 2), kinds=(False,) * 3, processes=2)
    for process in harness.processes:
        cluster = process.cluster
        cluster.use_failover(Failover(cluster.topology, cluster.members))
    harness.announce(0)
    harness.announce(1)
    harness.switch(0)
    deleting, reading, out = (0, 1, 0) if step == "switched" else (1, 0, 2)
    for process in (0, 1):
        eject(harness, out, process)
    key = moving_key(harness)
    assert harness.set("old", key, process=reading) is True
    assert harness.get(key, process=reading) == "old"
    harness.delete(key, process=deleting)
    assert harness.get(key, process=reading) is None


def test_values_are_copied_to_the_stand_in_of_a_new_node(harness):
    """A key whose new node is down is read on its old one, then on the stand-in."""
    harness.switch()
    eject(harness, 2)
    moved = [key for key in KEYS if isinstance(harness.cluster.route(key)[1], StandIn)]
    assert moved
    assert [harness.get(key) for key in moved] == [key.upper() for key in moved]
    for key in moved:
        assert harness.get(key) == key.upper()
        assert harness.delete(key) is True
        assert harness.get(key) is None


def test_keys_that_stay_take_their_detour_alone(harness):
    """The other node of a stand-in is its own: nothing moves."""
    harness.switch()
    eject(harness, 0)
    stays = next(
        key
        for key in KEYS
        if isinstance(member := harness.cluster.route(key)[1], StandIn)
        and harness.topologies[0].owner(key.encode()).name == "n0"
    )
    before = harness.cluster.move.reads
    assert harness.get(stays) is None
    harness.set("new", stays)
    assert harness.get(stays) == "new"
    assert member.owner is harness.cluster.members["n0"]
    assert harness.cluster.move.reads == before


def test_an_announced_process_deletes_on_the_next_node_behind_a_stand_in(harness):
    """What is written on the stand-in of an old node makes a copy on the next node old."""
    harness.announce()
    eject(harness, 0)
    key = moving_key(harness)
    harness.plant(2, (0, b"copy"), key.encode())
    assert harness.set("new", key) is True
    assert harness.held(2, key) is None
    assert harness.get(key) == "new"
