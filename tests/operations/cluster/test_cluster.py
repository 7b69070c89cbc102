"""A cluster of one topology, and another with other nodes."""

from __future__ import annotations

from operations.client_harness import ClientHarness
from operations.harness import Harness
from operations.simulation import Process, SimulatedNode
from shardcache.core.placement.topology import Topology
from shardcache.operations.cluster.failover import Failover
from shardcache.strategies.rendezvous import Rendezvous

KEYS = [f"k{number}" for number in range(50)]


def test_a_cluster_of_other_nodes_keeps_all_the_rest():
    """Keys are routed to its own nodes; the first cluster, and calls on it, go on as before."""
    harness = Harness(3)
    before = harness.cluster
    routes = {key: before.route(key) for key in KEYS}
    kept = {name: before.members[name] for name in ("n0", "n2")}
    topology = Topology([member.node for member in kept.values()], Rendezvous())
    after = before.with_nodes(topology, kept)
    assert {after.route(key)[1] for key in KEYS} == set(kept.values())
    assert {key: before.route(key) for key in KEYS} == routes
    assert list(after.all_members) == ["n0", "n2"]
    assert list(before.all_members) == ["n0", "n1", "n2"]
    changed = {"topology", "members", "route", "home", "group"}
    for part in set(type(before).__slots__) - changed:
        assert getattr(after, part) is getattr(before, part), part


def test_a_clearable_cluster_of_other_nodes_is_clearable():
    """It keeps its generations."""
    harness = ClientHarness(2, clearable=True)
    before = harness.cluster
    after = before.with_nodes(before.topology, before.members)
    assert type(after) is type(before)
    assert after.clearable
    assert after._generations is before._generations


def test_locks_are_taken_on_their_own_nodes_if_there_are_any():
    """Operators see those under names of their own."""
    harness = Harness(2)
    assert harness.cluster.locking is harness.cluster
    locks = Process(harness.world, [SimulatedNode(harness.world)]).cluster
    harness.cluster.locks = locks
    assert harness.cluster.locking is locks
    assert list(harness.cluster.all_members) == ["n0", "n1", "lock n0"]
    assert harness.cluster.all_members["lock n0"] is locks.members["n0"]


def test_no_node_stands_in_for_one_of_locks():
    """And what stands in for the others is not forgotten for them."""
    cluster = Harness(3).cluster
    cluster.use_failover(Failover(cluster.topology, cluster.members))
    owner, other = cluster.members["n0"], cluster.members["n1"]
    stand_in = cluster.failover._between(owner, other)
    locks = Harness(3).cluster
    apart = cluster.of_locks(locks.topology, locks.members)
    assert (apart.failover, apart.members) == (None, locks.members)
    assert cluster.failover._between(owner, other) is stand_in


def test_the_voters_of_a_place_are_an_odd_number_with_its_owner():
    """An even number of nodes would need as large a majority, and lose it to as few failures."""
    for nodes, voters in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (8, 5)):
        cluster = Harness(nodes).cluster
        for key in KEYS[:5]:
            _, owner, hashed = cluster.route(key)
            assert cluster.hashed(key) == hashed
            members = cluster.voters(hashed)
            assert members[0] is owner
            assert len(set(members)) == len(members) == voters
