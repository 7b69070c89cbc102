"""When ejected nodes are probed."""

from __future__ import annotations

import pytest

from operations.harness import GET, NODE_CHANGES
from operations.simulation import TIMEOUT
from shardcache.core.commands import Ping
from shardcache.core.health import Circuit
from shardcache.errors import NodeUnavailableError


class TestProbing:
    """When ejected nodes are probed."""

    def test_only_the_prober_asks_an_ejected_node(self, make_harness):
        """It probes after a quarter of a second, and later each time."""
        harness = make_harness(nodes=3)
        harness.kill(0)
        for _ in range(2000):
            assert isinstance(harness.ask(0), NodeUnavailableError)
            harness.advance(0.01)
        assert harness.calls(0) == 1
        assert 6 <= harness.probes(0) <= 15
        assert harness.members[0].refused == 2000

    def test_a_node_under_probe_has_the_circuit_probing(self, make_harness):
        """Before and after the probe its circuit is open."""
        harness = make_harness()
        harness.silence(0)
        assert harness.members[0].health.circuit is Circuit.OPEN
        harness.advance(1.0, lambda: harness.probes() == 1)
        assert harness.members[0].health.circuit is Circuit.PROBING
        harness.advance(TIMEOUT + 0.01)
        assert harness.members[0].health.circuit is Circuit.OPEN

    def test_a_restored_node_stays_closed_when_its_probe_fails_late(self, make_harness):
        """Another reply may restore it while the probe is on its way."""
        harness = make_harness()
        harness.silence(0)
        harness.advance(1.0, lambda: harness.probes() == 1)
        harness.cluster.ejector.record_success(harness.members[0], Ping())
        assert not harness.ejected()
        assert harness.members[0].health.circuit is Circuit.CLOSED
        harness.advance(TIMEOUT + 0.01)  # the probe is late now
        assert harness.members[0].health.circuit is Circuit.CLOSED

    def test_a_removed_node_is_not_probed(self, make_harness):
        """Observers are not told of it either."""
        harness = make_harness(nodes=2)
        harness.kill(0, 1)
        harness.cluster.ejector.keep(harness.members[1:])
        before = harness.probes(0)
        harness.advance(20.0)
        assert harness.probes(0) == before
        assert harness.probes(1) > 5
        harness.nodes[1].up = True
        harness.advance(20.0)
        assert [event.node.name for event in harness.events.of(*NODE_CHANGES)] == ["n0", "n1", "n1"]

    def test_a_stopped_prober_asks_no_node(self, make_harness):
        """The nodes of a closed client are left alone."""
        harness = make_harness()
        harness.kill(0)
        harness.cluster.ejector.stop()
        harness.advance(20.0)
        assert harness.probes() == 0


class TestMostNodesSilent:
    """When most nodes are silent, the trouble may be in this process."""

    def probed(self, harness, place):
        """Return how often a node is probed within ten seconds, if its own delay is longer."""
        before = harness.probes(place)
        harness.members[place].health.due = harness.now + 100.0
        end = harness.now + 10.0
        while harness.now < end:
            harness.ask(place)
            harness.advance(0.02)
            harness.members[place].health.due = max(harness.members[place].health.due, end + 1)
        return harness.probes(place) - before

    def test_silent_nodes_are_probed_once_a_second(self, make_harness):
        """The delay of each may have grown beyond that."""
        harness = make_harness(nodes=3)
        harness.silence(0, 1)
        assert 7 <= self.probed(harness, 0) <= 11
        assert 7 <= self.probed(harness, 1) <= 11

    @pytest.mark.parametrize(("nodes", "silent"), [(2, 1), (4, 2), (3, 1)])
    def test_half_of_the_nodes_are_not_most(self, make_harness, nodes, silent):
        """Half of the nodes are probed by their delays alone."""
        harness = make_harness(nodes)
        harness.silence(*range(silent))
        assert self.probed(harness, 0) == 0

    def test_nodes_that_refuse_connections_are_not_silent(self, make_harness):
        """They do not count among the silent, and are not probed with them."""
        harness = make_harness(nodes=5)
        harness.kill(0)
        harness.silence(1, 2)
        assert self.probed(harness, 1) == 0
        harness.silence(3)
        assert self.probed(harness, 0) == 0
        assert self.probed(harness, 1) > 5

    @pytest.mark.parametrize("nodes", [1, 3, 5])
    def test_no_call_waits_for_silent_nodes(self, make_harness, nodes):
        """A worker of one thread goes on at full speed with all of its nodes stopped."""
        harness = make_harness(nodes)
        harness.silence(*range(nodes))
        before = [harness.calls(place) for place in range(nodes)]
        asks = [(member, GET) for member in harness.members]
        for _ in range(100):
            began = harness.now
            for place in range(nodes):
                harness.ask(place)
            harness.run(harness.cluster.ask_many(asks))
            harness.run(harness.cluster.ask_many(asks, harness.cluster.deadline(), lambda _: False))
            assert harness.now == began
            harness.advance(0.1)
        assert [harness.calls(place) for place in range(nodes)] == before
