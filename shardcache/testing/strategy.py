"""The contract of a strategy: what every placement must do, whatever its algorithm.

Subclass it where pytest collects, and name the strategy to use::

    class TestMine(StrategyContract):
        minimal = True  # when a node leaves, only its keys move

        @pytest.fixture
        def strategy(self):
            return Mine()
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology

KEYS = [f"user:{number}:profile".encode() for number in range(2000)]


class StrategyContract:
    """What every strategy must do. `minimal`: when the last node leaves, only its keys move."""

    minimal: ClassVar[bool] = True

    @pytest.fixture(params=[1, 2, 3, 10])
    def topology(self, request: pytest.FixtureRequest, strategy: Strategy) -> Topology:
        """Return topologies of several sizes in turn."""
        nodes = [Node(f"memcached://10.0.0.{number}:11211") for number in range(request.param)]
        return Topology(nodes, strategy)

    def test_every_key_has_an_owner_among_the_nodes(self, topology: Topology) -> None:
        """Any bytes have an owner, and always the same one."""
        for key in (*KEYS, b"", b"\x00\xff", "日本".encode(), b"k" * 5000):
            owner = topology.owner(key)
            assert owner in topology.nodes
            assert topology.owner(key) is owner

    def test_many_keys_have_the_owners_of_each(self, topology: Topology) -> None:
        """The owners of many keys are found one by one, or by the placement's own `owners`."""
        assert list(topology.owners(KEYS)) == [topology.owner(key) for key in KEYS]
        assert list(topology.owners([])) == []

    def test_every_node_holds_keys(self, topology: Topology) -> None:
        """No node is left without keys."""
        counts = Counter(topology.owner(key).name for key in KEYS)
        assert set(counts) == {node.name for node in topology.nodes}

    def test_preference_begins_with_the_owner(self, topology: Topology) -> None:
        """The preferred nodes are distinct, the owner first: as many as asked for, or all."""
        for key in KEYS[:100]:
            for count in (1, 2, len(topology.nodes), len(topology.nodes) + 3):
                preferred = list(topology.preference(key, count))
                assert preferred[0] is topology.owner(key)
                assert len(set(preferred)) == len(preferred) == min(count, len(topology.nodes))
                assert preferred == list(topology.preference(key, count))

    def test_equal_topologies_place_equally(self, topology: Topology) -> None:
        """Two placements of the same nodes are equal, and so are their fingerprints."""
        twin = Topology(topology.nodes, topology.strategy)
        assert twin.fingerprint == topology.fingerprint
        assert [twin.owner(key) for key in KEYS] == [topology.owner(key) for key in KEYS]

    def test_other_nodes_have_another_fingerprint(self, topology: Topology) -> None:
        """One more node changes the fingerprint."""
        assert topology.adding(Node("memcached://10.9.9.9")).fingerprint != topology.fingerprint

    def test_when_a_node_leaves_only_its_keys_move(self, topology: Topology) -> None:
        """A key never moves between two nodes that stay."""
        if not self.minimal or len(topology.nodes) == 1:
            return
        leaving = topology.nodes[-1]
        after = topology.removing(leaving.name)
        moved = {topology.owner(key) for key in KEYS if after.owner(key) != topology.owner(key)}
        assert moved == {leaving}
