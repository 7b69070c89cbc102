"""Operations on whole nodes: who is asked, and what stands for a node that fails."""

from __future__ import annotations

import pytest

from operations.client_harness import REFUSED, ClientHarness
from operations.harness import ROUND_TRIP
from operations.simulation import TIMEOUT, Process, SimulatedNode
from shardcache.core.commands import FlushAll, ServerStats
from shardcache.core.pools import PoolUse
from shardcache.errors import (
    NodeTimeoutError,
    NodeUnavailableError,
    PartialFailureError,
    TopologyError,
)
from shardcache.operations.keys import admin

KEYS = [f"k{number}" for number in range(20)]


@pytest.fixture
def harness():
    """Return three nodes with keys, and one node that serves only locks."""
    harness = ClientHarness(3)
    harness.set_many(dict.fromkeys(KEYS, "v"))
    harness.lock_node = SimulatedNode(harness.world)
    locks = Process(harness.world, [harness.lock_node])
    harness.cluster.locks = locks.cluster
    for node in range(3):
        harness.sent(node)
    return harness


def entries(harness):
    """Return how many keys each node has."""
    return [len(node.store._entries) for node in harness.nodes]


class TestPing:
    """A ping asks every node, those for locks and ejected ones too."""

    def test_each_node_has_its_seconds_or_its_error(self, harness):
        """All are asked at once, so one that is silent costs one timeout."""
        harness.nodes[0].stopped = True
        harness.nodes[1].delay = 0.01
        harness.lock_node.up = False
        began = harness.now
        answers = harness.run(admin.ping(harness.cluster))
        assert harness.now - began == pytest.approx(TIMEOUT)
        assert list(answers) == ["n0", "n1", "n2", "lock n0"]
        assert isinstance(answers["n0"], NodeTimeoutError)
        assert answers["n1"] == pytest.approx(0.02)
        assert answers["n2"] == pytest.approx(ROUND_TRIP)
        assert isinstance(answers["lock n0"], NodeUnavailableError)


class TestFigures:
    """The server's figures, and the client's counters."""

    def test_each_node_has_its_servers_figures_or_its_error(self, harness):
        """The client's own counters are there in both cases."""
        harness.nodes[1].up = False
        stats = harness.run(admin.stats(harness.cluster, {"hits": 3}))
        assert list(stats) == ["n0", "n1", "n2", "lock n0"]
        assert stats["n0"].server["entries"] == str(entries(harness)[0])
        assert isinstance(stats["n1"].server, NodeUnavailableError)
        assert [each.circuit for each in stats.values()] == ["closed", "open", "closed", "closed"]
        assert stats["n0"].client["calls"] == 1  # before this one
        assert stats["lock n0"].client["calls"] == 0
        assert stats.protection == {"hits": 3}
        assert [harness.sent(node) for node in range(3)][1:] == [["ServerStats"]] * 2

    def test_counters_ask_no_node(self, harness):
        """They are this client's own, with the state of each node's circuit."""
        harness.nodes[1].up = False
        harness.get_many(*KEYS)
        harness.sent(1)
        counted = admin.counters(harness.cluster, {"misses": 1})
        assert list(counted) == ["n0", "n1", "n2", "lock n0"]
        assert sum(each["hits"] for each in counted.values()) == len(KEYS) - entries(harness)[1]
        assert counted["n1"]["errors"] == counted["n1"]["ejections"] == 1
        assert counted["n1"]["mean_seconds"] == pytest.approx(ROUND_TRIP)
        assert counted["lock n0"]["mean_seconds"] == 0.0
        assert counted.protection == {"misses": 1}
        assert counted.circuits == {
            "n0": "closed",
            "n1": "open",
            "n2": "closed",
            "lock n0": "closed",
        }
        assert harness.received[1] == []

    def test_a_node_has_connections_if_its_backend_tells(self, harness):
        """A node in memory has none, nor has one whose backend tells something else."""
        harness.member(0).backend.pool_use = PoolUse(3, 1, 32)
        harness.member(1).backend.pool_use = "3 of 32"
        assert admin.counters(harness.cluster, {}).pools == {"n0": PoolUse(3, 1, 32)}

    def test_the_counters_of_recomputes_are_a_copy(self, harness):
        """They stay as they were when they were asked for."""
        recomputes = {"hits": 1}
        counted = admin.counters(harness.cluster, recomputes)
        recomputes["hits"] = 2
        assert counted.protection == {"hits": 1}


class TestFlushing:
    """Nodes are emptied, and no caller joins a recompute that began before."""

    @pytest.fixture
    def forgotten(self, harness):
        """Return a list that grows each time all flights are forgotten."""
        forgotten = []
        harness.cluster.io.single_flight.forget_all = lambda: forgotten.append(1)
        return forgotten

    def test_all_nodes_are_emptied(self, harness, forgotten):
        """Those for locks are not asked: locks are held there."""
        asked = harness.record_commands(nodes=[harness.lock_node])
        assert harness.run(admin.flush_all(harness.cluster)) is True
        assert entries(harness) == [0, 0, 0]
        assert asked == []
        assert forgotten == [1]

    def test_a_node_that_is_not_emptied_makes_it_false(self, harness, forgotten):
        """The others are empty all the same."""
        harness.answer_to(FlushAll, REFUSED, 1)
        assert harness.run(admin.flush_all(harness.cluster)) is False
        assert [bool(count) for count in entries(harness)] == [False, True, False]
        assert harness.member(1).swallowed == 1
        assert forgotten == [1]

    def test_a_client_that_raises_names_the_nodes(self, harness):
        """The error says which are empty, and why the others are not."""
        harness.cluster.raises = True
        harness.answer_to(FlushAll, REFUSED, 1)
        with pytest.raises(PartialFailureError, match="1 of 3 nodes failed") as raised:
            harness.run(admin.flush_all(harness.cluster))
        assert raised.value.failed == {"n1": REFUSED}
        assert raised.value.succeeded == ["n0", "n2"]

    def test_one_node_is_emptied_by_its_name(self, harness, forgotten):
        """The others keep what they have."""
        before = entries(harness)
        assert harness.run(admin.flush_node(harness.cluster, "n1")) is True
        assert entries(harness) == [before[0], 0, before[2]]
        assert forgotten == [1]

    @pytest.mark.parametrize("raises", [False, True])
    def test_one_node_that_fails(self, harness, raises):
        """Its error is swallowed or raised, as `on_error` says."""
        harness.cluster.raises = raises
        harness.nodes[1].up = False
        work = admin.flush_node(harness.cluster, "n1")
        if raises:
            with pytest.raises(NodeUnavailableError):
                harness.run(work)
        else:
            assert harness.run(work) is False

    def test_an_unknown_node_is_an_error(self, harness, forgotten):
        """No node is asked, and no flight forgotten."""
        with pytest.raises(TopologyError, match="n7"):
            harness.run(admin.flush_node(harness.cluster, "n7"))
        assert harness.received == [[], [], []]
        assert forgotten == []


def test_a_server_that_refuses_its_figures_is_no_failed_node(harness):
    """A proxy has none; the refusal stands in their place."""
    harness.answer_to(ServerStats, REFUSED, 2)
    stats = harness.run(admin.stats(harness.cluster, {}))
    assert stats["n2"].server is REFUSED
    assert stats["n2"].circuit == "closed"
