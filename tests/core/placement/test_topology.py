"""A topology places keys by its strategy, or by the placement that its nodes came with."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import pytest

from shardcache import Client, Node, Topology, TopologyChange, TopologyError
from shardcache.core.placement.hashing import crc16, hash_tag
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump

NODES = [Node(f"memory://{name}") for name in "abc"]
KEYS = [b"k%d" % number for number in range(300)]


@dataclass(frozen=True)
class Slots:
    """A placement as a cluster reports it: which node has which slot, in any order."""

    nodes: tuple[Node, ...]

    def owner(self, key: bytes) -> Node:
        """Return the node of the key's slot."""
        return self.nodes[crc16(hash_tag(key)) % 16_384 % len(self.nodes)]

    @property
    def digest(self) -> bytes:
        """Return the nodes in the order of their slots."""
        return repr(self.nodes).encode()

    def preference(self, key: bytes, count: int) -> list[Node]:
        """Return the owner, then the others."""
        owner = self.owner(key)
        return [owner, *(node for node in self.nodes if node != owner)][:count]


FORWARD, BACKWARD = Slots(tuple(NODES)), Slots(tuple(reversed(NODES)))


def test_a_placement_of_the_source_decides():
    """Owner, preference and fingerprint are the placement's, not those of the strategy's."""
    built, own = Topology(NODES, Crc16()), Topology(NODES, Crc16(), FORWARD)
    assert [own.owner(key) for key in KEYS] == [FORWARD.owner(key) for key in KEYS]
    assert [own.owner(key) for key in KEYS] != [built.owner(key) for key in KEYS]
    assert own.preference(b"k", 3) == FORWARD.preference(b"k", 3)
    prints = {each.fingerprint for each in (built, own, Topology(NODES, Crc16(), BACKWARD))}
    assert len(prints) == 3


def test_slots_can_move_while_nodes_stay():
    """A change of placement alone is a change of topology, whose movement can be measured."""
    before = Topology(NODES, Crc16(), FORWARD)
    after = before.replaced(NODES, BACKWARD)
    change = TopologyChange(before, after)
    assert not change.added
    assert not change.removed
    assert change.movement.moved == pytest.approx(2 / 3, abs=0.05)
    assert 0.5 < change.moved < 0.8


def test_a_strategy_has_no_say_in_it():
    """What the strategy could not follow is no fault if the source says where keys are."""
    topology = Topology(NODES, Jump())
    with pytest.raises(TopologyError):
        topology.replaced(NODES[1:])
    assert topology.replaced(NODES[1:], Slots(tuple(NODES[1:]))).nodes == tuple(NODES[1:])


def test_it_is_pickled_with_it():
    """A copy in another process places keys as the original does."""
    topology = Topology(NODES, Crc16(), BACKWARD)
    twin = pickle.loads(pickle.dumps(topology))
    assert twin.fingerprint == topology.fingerprint
    assert twin.replaced(NODES).fingerprint == Topology(NODES, Crc16()).fingerprint


def test_a_client_follows_it():
    """Each key is stored on the node that the source named."""
    with Client(NODES, strategy=Crc16()) as client:
        client._swap(lambda topology: topology.replaced(topology.nodes, BACKWARD))
        for key in KEYS:
            client.set(key, 1)
        held = {name: stats.server["entries"] for name, stats in client.stats().items()}
        wanted = [BACKWARD.owner(key).name for key in KEYS]
        assert {name: int(count) for name, count in held.items()} == {
            node.name: wanted.count(node.name) for node in NODES
        }
        assert client.node_for(KEYS[0]) == BACKWARD.owner(KEYS[0])
