"""Preference lists: distinct nodes, the owner first, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.placement.nodes import Node
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import Maglev
from shardcache.strategies.modulo import Modulo
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous

ALL = [
    Rendezvous(),
    Rendezvous(hash_tags=True),
    Ketama(),
    Ketama(profile="pylibmc"),
    Maglev(table=251),
    Jump(),
    Pymemcache(),
    Modulo(),
    Crc16(),
]
KEY = st.binary(max_size=30)


def nodes_of(count, weight=1):
    """Give so many nodes."""
    return [Node(f"memcached://10.0.0.{number}:11211", weight=weight) for number in range(count)]


@pytest.mark.parametrize("strategy", ALL, ids=lambda strategy: strategy.name)
@given(KEY, st.integers(1, 9), st.integers(0, 12))
def test_a_preference_is_distinct_nodes_with_the_owner_first(strategy, key, nodes, count):
    """As many as asked for, as far as there are nodes; a shorter list begins a longer one."""
    listed = nodes_of(nodes)
    placement = strategy.build(listed)
    preference = list(placement.preference(key, count))
    assert len(preference) == len(set(preference)) == min(count, nodes)
    assert set(preference) <= set(listed)
    assert preference[:1] == [placement.owner(key)][:count]
    whole = list(strategy.build(listed).preference(key, nodes))
    assert preference == whole[:count]


@pytest.mark.parametrize("strategy", [Rendezvous(), Pymemcache()], ids=lambda each: each.name)
@given(KEY, st.lists(st.floats(0.1, 9), min_size=2, max_size=9), st.data())
def test_without_a_node_the_rest_stay_in_order(strategy, key, weights, data):
    """By scores, the list without a node is the list with it, less that node."""
    if strategy.name == "pymemcache":
        weights = [1] * len(weights)
    nodes = [Node(f"memory://{index}", weight=weight) for index, weight in enumerate(weights)]
    gone = data.draw(st.sampled_from(nodes))
    whole = strategy.build(nodes).preference(key, len(nodes))
    rest = strategy.build([node for node in nodes if node is not gone])
    assert [node for node in whole if node is not gone] == list(rest.preference(key, len(nodes)))


@given(KEY)
def test_a_ring_walks_on(key):
    """Without its owner, a key of an unweighted ring lives on its second node."""
    nodes = nodes_of(6)
    first, second = Ketama().build(nodes).preference(key, 2)
    assert Ketama().build([node for node in nodes if node is not first]).owner(key) is second


@pytest.mark.parametrize(
    "strategy", [Ketama(), Maglev(), Crc16(), Rendezvous(), Modulo()], ids=lambda each: each.name
)
def test_a_node_too_light_for_any_key_comes_last(strategy):
    """A list of all nodes has all, also one whose weight rounds to no place at all."""
    light = Node("memory://light", weight=1)
    heavy = [Node(f"memory://heavy{number}", weight=99_999) for number in range(3)]
    for nodes in ([light, *heavy], [*heavy, light]):
        preference = strategy.build(nodes).preference(b"key", 4)
        assert sorted(preference, key=str) == sorted(nodes, key=str)


def test_failing_over_spreads_the_keys_of_a_node():
    """The second nodes of one node's keys are all the others, not one neighbour."""
    nodes = nodes_of(5)
    for strategy in ALL:
        placement = strategy.build(nodes)
        keys = [b"key:%d" % number for number in range(400)]
        seconds = {
            second
            for first, second in (placement.preference(key, 2) for key in keys)
            if first is nodes[0]
        }
        assert seconds == set(nodes[1:]), strategy.name
