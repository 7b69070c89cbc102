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


def test_nodes_join_and_leave():
    """Nodes join at the end of the list and leave by their names; the original stays as it is."""
    topology = Topology(NODES[:2], Crc16())
    grown = topology.adding(NODES[2])
    assert [node.name for node in grown.nodes] == ["a", "b", "c"]
    assert [node.name for node in grown.removing("a").nodes] == ["b", "c"]
    assert topology.nodes == tuple(NODES[:2])
    assert grown.removing("c").fingerprint == topology.fingerprint != grown.fingerprint


def test_a_node_is_found_by_its_name():
    """The error for an unknown name lists the known ones."""
    topology = Topology(NODES, Crc16())
    assert topology.node("b") is NODES[1]
    for call in (topology.node, topology.removing):
        with pytest.raises(TopologyError, match=r"^no node 'd' \(known: a, b, c\)$"):
            call("d")


def test_impossible_sets_of_nodes_are_refused():
    """No nodes at all, and nodes of one name; the last one cannot leave."""
    with pytest.raises(TopologyError, match="at least one node"):
        Topology([], Crc16())
    with pytest.raises(TopologyError, match="at least one node"):
        Topology(NODES[:1], Crc16()).removing("a")
    with pytest.raises(TopologyError, match=r"^two nodes are called 'a', 'b'$"):
        Topology([*NODES, *NODES[:2]], Crc16())
    with pytest.raises(TopologyError, match=r"^two nodes are called 'a'$"):
        Topology(NODES, Crc16()).adding(Node("memory://elsewhere", "a"))


def test_a_change_names_the_nodes_that_come_and_go():
    """By name: a node that stays under its name is neither, whatever its address."""
    before = Topology(NODES[:2], Crc16())
    after = before.replaced([Node("memory://elsewhere", "b"), NODES[2]])
    change = TopologyChange(before, after)
    assert (change.added, change.removed) == ((NODES[2],), (NODES[0],))
    assert str(change) == "+c -a"
    assert repr(change) == "<TopologyChange +c -a>"
    assert str(TopologyChange(before, before)) == "same nodes"
    assert repr(before) == "<Topology [2 nodes] crc16>"


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
        client._swap(lambda topology: topology.replaced(topology.nodes, BACKWARD), warm_for=0)
        for key in KEYS:
            client.set(key, 1)
        held = {name: stats.server["entries"] for name, stats in client.stats().items()}
        wanted = [BACKWARD.owner(key).name for key in KEYS]
        assert {name: int(count) for name, count in held.items()} == {
            node.name: wanted.count(node.name) for node in NODES
        }
        assert client.node_for(KEYS[0]) == BACKWARD.owner(KEYS[0])
