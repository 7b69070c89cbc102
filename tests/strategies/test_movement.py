"""What moves is measured: exactly where a placement is made of runs, else by keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardcache.core.events import TopologyChanged
from shardcache.core.placement.movement import SAMPLE, Movement, shares
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Measurable
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import Maglev
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

NODES = [Node(f"memcached://10.0.0.{number}:11211") for number in range(6)]
RUNS = [
    Rendezvous(),
    Ketama(),
    Ketama(profile="pylibmc"),
    Ketama(profile="twemproxy", hash="crc32"),
    Maglev(table=251),
    Crc16(),
]


@pytest.mark.parametrize("strategy", RUNS, ids=lambda strategy: strategy.name)
def test_runs_agree_with_a_sample(strategy):
    """What the runs say of the key space is what keys do, to a few standard errors."""
    before, after = strategy.build(NODES), strategy.build(NODES[:-1])
    exact = Movement.between(before, after)
    keys = [b"%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835) for number in range(SAMPLE)]
    counted = Movement.between(before, after, keys)
    assert (exact.basis, counted.basis, counted.total) == ("key space", "keys", SAMPLE)
    assert exact.moved == pytest.approx(counted.moved, abs=0.03)
    for name in counted.before:
        assert exact.before[name] == pytest.approx(counted.before[name], abs=0.03)
    for name in counted.after:
        assert exact.after[name] == pytest.approx(counted.after[name], abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [*RUNS, Jump(), Pymemcache()], ids=lambda each: each.name)
def test_nothing_moves_without_a_change(strategy):
    """A placement compared with itself stays."""
    movement = Movement.between(strategy.build(NODES), strategy.build(NODES))
    assert movement.moving == movement.moved == 0
    assert movement.before == movement.after == shares(strategy.build(NODES))
    assert sum(movement.after.values()) == pytest.approx(1)


def test_rendezvous_moves_what_the_node_that_leaves_had():
    """What moves is its share, exactly, and goes to all the others."""
    movement = Movement.between(Rendezvous().build(NODES), Rendezvous().build(NODES[1:]))
    gone = NODES[0].name
    assert movement.total == 65_536
    assert movement.moved == movement.before[gone]
    assert gone not in movement.after
    moves = {(old, new) for old, new in movement.flows if old != new}
    assert moves == {(gone, node.name) for node in NODES[1:]}


def test_the_ring_is_measured_to_its_last_point():
    """The runs of a ring make up the whole space of its 32-bit hash."""
    movement = Movement.between(Ketama().build(NODES), Ketama().build(NODES[:-1]))
    assert movement.total == 2**32
    assert movement.moved == movement.before[NODES[-1].name]


def test_between_strategies_a_sample_is_counted():
    """Two hashes have no space in common, so keys are asked."""
    movement = Movement.between(Rendezvous().build(NODES), Ketama().build(NODES))
    assert (movement.basis, movement.total) == ("sample", SAMPLE)
    assert movement.moved == pytest.approx(5 / 6, abs=0.03)


@pytest.mark.slow
def test_many_nodes_are_sampled():
    """Where exactness would take many seconds, every so many slots are looked at."""
    nodes = [Node(f"memory://{number}") for number in range(400)]
    movement = Movement.between(Rendezvous().build(nodes), Rendezvous().build(nodes[:200]))
    assert movement.basis == "sample"
    assert 65_536 / 4 < movement.total < 65_536 / 2
    assert movement.moved == pytest.approx(0.5, abs=0.03)


def test_no_keys_is_no_movement():
    """A list without keys divides by nothing."""
    movement = Movement.between(Jump().build(NODES), Jump().build(NODES), iter(()))
    assert (movement.total, movement.moved, movement.before) == (0, 0.0, {})


@pytest.mark.parametrize("strategy", RUNS, ids=lambda strategy: strategy.name)
@settings(max_examples=20)
@given(st.sampled_from(range(1, 7)))
def test_runs_cover_their_space_once(strategy, count):
    """Ends never go back, and those of all placements of one space end alike."""
    placement = strategy.build(NODES[:count])
    assert isinstance(placement, Measurable)
    hash_ranges = placement.hash_ranges()
    assert list(hash_ranges.ends) == sorted(hash_ranges.ends)
    assert hash_ranges.ends[-1] == strategy.build(NODES).hash_ranges().ends[-1]
    assert hash_ranges.space == strategy.build(NODES).hash_ranges().space


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8, 32, 100])
@pytest.mark.parametrize("strategy", [*RUNS, Jump()], ids=lambda each: each.name)
def test_an_estimate_is_near(strategy, count):
    """The estimated share is that of the exact measure, to four standard errors."""
    nodes = [Node(f"memcached://10.0.1.{number}:11211") for number in range(count + 1)]
    before, after = strategy.build(nodes[:-1]), strategy.build(nodes)
    estimate = Movement.estimate(before, after)
    assert estimate.moved == pytest.approx(Movement.between(before, after).moved, abs=0.03)


class Counting(Rendezvous):
    """A strategy that counts for how many slots of its placements an owner was asked."""

    asked = 0

    def place(self, nodes):
        """Return the placement of the strategy, which counts."""
        placed = super().place(nodes)
        hash_ranges = placed.hash_ranges()

        def owner(slot):
            self.asked += 1
            return hash_ranges.owner(slot)

        return replace(placed, owner=None, hash_ranges=lambda: hash_ranges._replace(owner=owner))


@pytest.mark.parametrize("count", [2, 8, 32, 100])
def test_the_share_that_moved_takes_little(count):
    """`moved` costs about as many hashes whatever the number of nodes: some milliseconds."""
    strategy = Counting()
    nodes = [Node(f"memcached://10.0.1.{number}:11211") for number in range(count)]
    change = TopologyChange(Topology(nodes, strategy), Topology(nodes[1:], strategy))
    assert 0 < change.moved < 1
    assert strategy.asked * count <= 150_000
    asked = strategy.asked
    assert change.moved == change.moved
    assert strategy.asked == asked


def test_the_text_of_a_change_takes_nothing():
    """Who logs a change asks for no key's owner."""
    strategy = Counting()
    before = Topology(NODES[:2], strategy)
    change = TopologyChange(before, Topology(NODES[1:3], strategy))
    assert str(change) == "+10.0.0.2:11211 -10.0.0.0:11211"
    assert repr(change) == "<TopologyChange +10.0.0.2:11211 -10.0.0.0:11211>"
    assert str(TopologyChange(before, before)) == "same nodes"
    assert repr(change) in repr(TopologyChanged(change))
    assert strategy.asked == 0
