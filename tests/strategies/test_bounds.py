"""What each strategy promises of any set of nodes: who moves, and how evenly keys lie."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import sqrt
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from shardcache.core.placement.movement import Movement, shares
from shardcache.core.placement.nodes import MAX_WEIGHT, Node
from shardcache.strategies import slot_tables
from shardcache.strategies.crc16 import Crc16
from shardcache.strategies.jump import Jump
from shardcache.strategies.ketama import Ketama
from shardcache.strategies.maglev import TABLE_SIZES, Maglev, fill_table
from shardcache.strategies.modulo import Modulo
from shardcache.strategies.pymemcache import Pymemcache
from shardcache.strategies.rendezvous import Rendezvous
from shardcache.strategies.ring import ring

KEYS = [b"user:%d:profile" % number for number in range(200)]
ALL = [Rendezvous(), Ketama(), Maglev(table=251), Jump(), Pymemcache(), Modulo(), Crc16()]
RINGS = [Ketama(profile=profile) for profile in ("libmemcached", "pylibmc", "libketama")]
# Leaving or joining, a node moves its own keys only; order is of no account.
MINIMAL = [Rendezvous(), Pymemcache(), *RINGS, Ketama(profile="spymemcached")]

NAMES = st.lists(st.integers(0, 999), min_size=2, max_size=8, unique=True)
WEIGHTS = st.integers(1, 9) | st.floats(0.25, 20)


def nodes_of(numbers, weights=None):
    """Give nodes by their numbers."""
    return [
        Node(f"memcached://10.0.{number // 250}.{number % 250}:11211", weight=weight)
        for number, weight in zip(numbers, weights or [1] * len(numbers), strict=True)
    ]


def owners(strategy, nodes, keys=KEYS):
    """Give the names of the keys' owners."""
    owner = strategy.build(nodes).owner
    return [owner(key).name for key in keys]


def named(strategies):
    """Parametrise a test by strategies, each called by its name."""
    return pytest.mark.parametrize("strategy", strategies, ids=lambda strategy: strategy.name)


@named(ALL)
def test_a_single_node_has_every_key(strategy):
    """With one node there is no choice."""
    (node,) = nodes = nodes_of([7])
    placement = strategy.build(nodes)
    assert {placement.owner(key) for key in KEYS} == {node}
    assert placement.preference(b"key", 3) == [node]


@named([*MINIMAL, Maglev(table=251)])
@given(NAMES, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(strategy, numbers, random):
    """Two clients that list the same nodes differently agree, digest included."""
    nodes = nodes_of(numbers)
    shuffled = random.sample(nodes, len(nodes))
    assert owners(strategy, shuffled) == owners(strategy, nodes)
    assert strategy.build(shuffled).digest == strategy.build(nodes).digest


@named([Jump(), Modulo(), Crc16()])
def test_where_order_matters_the_digest_says_so(strategy):
    """Nodes in another order are another placement, and its digest differs."""
    nodes = nodes_of([1, 2, 3])
    assert owners(strategy, nodes[::-1]) != owners(strategy, nodes)
    assert strategy.build(nodes[::-1]).digest != strategy.build(nodes).digest


@named(MINIMAL)
@given(NAMES)
def test_only_the_keys_of_the_node_that_leaves_move(strategy, numbers):
    """Between two nodes that stay no key moves, and coming back restores every key."""
    nodes = nodes_of(numbers)
    gone = nodes[-1].name
    full, rest = owners(strategy, nodes), owners(strategy, nodes[:-1])
    for before, after in zip(full, rest, strict=True):
        assert before in {after, gone}
    assert gone not in rest
    assert owners(strategy, [nodes[-1], *nodes[:-1]]) == full


@given(st.integers(1, 40))
def test_jump_moves_only_to_and_from_the_end(count):
    """Growing by one, keys move only to the new last node."""
    nodes = nodes_of(range(count + 1))
    full, rest = owners(Jump(), nodes), owners(Jump(), nodes[:-1])
    for before, after in zip(full, rest, strict=True):
        assert before in {after, nodes[-1].name}


@given(NAMES, st.data())
def test_rendezvous_is_minimal_with_weights_too(numbers, data):
    """A node that leaves, or whose weight changes, is one end of every move."""
    weights = data.draw(st.lists(WEIGHTS, min_size=len(numbers), max_size=len(numbers)))
    nodes = nodes_of(numbers, weights)
    heavier = Node(nodes[0].url, weight=data.draw(WEIGHTS))
    for changed in (nodes[1:], [heavier, *nodes[1:]]):
        old, new = owners(Rendezvous(), nodes), owners(Rendezvous(), changed)
        for before, after in zip(old, new, strict=True):
            assert after == before or heavier.name in {before, after}


@given(NAMES, st.data())
def test_a_weight_moves_keys_one_way(numbers, data):
    """A node that grows heavier only gains keys under rendezvous."""
    weights = data.draw(st.lists(WEIGHTS, min_size=len(numbers), max_size=len(numbers)))
    nodes = nodes_of(numbers, weights)
    heavier = Node(nodes[0].url, weight=weights[0] * data.draw(st.floats(1, 10)))
    old, new = owners(Rendezvous(), nodes), owners(Rendezvous(), [heavier, *nodes[1:]])
    for before, after in zip(old, new, strict=True):
        assert after in {before, heavier.name}


@pytest.mark.slow
@settings(max_examples=5)
@given(NAMES.filter(lambda numbers: len(numbers) < 5), st.data())
def test_rendezvous_balances_as_chance_does(numbers, data):
    """Slots are binomial: within six standard deviations of the node's share."""
    weights = data.draw(st.lists(WEIGHTS, min_size=len(numbers), max_size=len(numbers)))
    nodes = nodes_of(numbers, weights)
    slots = Movement.between(*[Rendezvous().build(nodes)] * 2).flows
    assert slots.total() == 65_536
    for node in nodes:
        share = node.weight / sum(weights)
        deviation = sqrt(65_536 * share * (1 - share))
        assert abs(slots[node.name, node.name] - 65_536 * share) <= 6 * deviation + 1


@settings(max_examples=20)
@given(st.sets(st.integers(0, 9999), min_size=1, max_size=60), st.sampled_from(TABLE_SIZES[::2]))
def test_maglev_balances_within_one_entry(numbers, size):
    """Equal nodes take turns, so their entries differ by one at most."""
    held = Counter(fill_table(nodes_of(sorted(numbers)), size))
    assert max(held.values()) - min(held[index] for index in range(len(numbers))) <= 1


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_maglev_balances_weights_within_three_entries(weights):
    """A weighted node's entries are its share of the table, within three."""
    held = Counter(fill_table(nodes_of(range(len(weights)), weights), 65_537))
    for index, weight in enumerate(weights):
        assert abs(held[index] - 65_537 * weight / sum(weights)) <= 3


@given(st.lists(st.integers(1, 99) | st.floats(0.01, 99), min_size=1, max_size=9))
def test_maglev_skips_rounds_without_changing_the_table(weights):
    """The table is that of the plain construction, which asks every node in every round."""
    nodes = nodes_of(range(len(weights)), weights)
    assert fill_table(nodes, 251) == filled_round_by_round(nodes, 251)


@given(st.lists(st.floats(5e-324, MAX_WEIGHT), min_size=2, max_size=9), st.data())
def test_maglev_fills_its_table_however_far_apart_weights_are(weights, data):
    """The heaviest node has a turn in every round, so no entry is left over."""
    equal = data.draw(st.sampled_from([weights, weights[:1] * len(weights)]))
    table = fill_table(nodes_of(range(len(weights)), equal), 251)
    assert len(table) == 251
    assert set(table) <= set(range(len(weights)))


def filled_round_by_round(nodes, size):
    """Give Maglev's table as Envoy describes it, without any shortcut."""
    weights = [node.weight / sum(node.weight for node in nodes) for node in nodes]
    targets = [0.0] * len(nodes)
    names = [node.name.encode() for node in nodes]
    places = [xxh64_intdigest(name, 0) % size for name in names]
    skips = [xxh64_intdigest(name, 1) % (size - 1) + 1 for name in names]
    table = [None] * size
    turn = 0
    while True:
        turn += 1
        for index, weight in enumerate(weights):
            if turn * weight < targets[index]:
                continue
            targets[index] += max(weights)
            while table[places[index]] is not None:
                places[index] = (places[index] + skips[index]) % size
            table[places[index]] = index
            if None not in table:
                return table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "slack"), [(2, 0.005), (5, 0.005), (10, 0.005), (100, 0.01), (1000, 0.015)]
)
def test_maglev_moves_little_more_than_it_must(count, slack):
    """The node that leaves gives up its share, and few other keys move."""
    nodes = nodes_of(range(count))
    full = Maglev().build(nodes)
    gone = nodes[count // 2]
    moved = Movement.between(full, Maglev().build([node for node in nodes if node is not gone]))
    assert moved.basis == "key space"
    assert moved.moved <= shares(full)[gone.name] + slack


@named([Ketama(), Ketama(profile="libketama"), Ketama(profile="spymemcached")])
@settings(max_examples=20)
@given(st.sets(st.integers(0, 9999), min_size=5, max_size=40))
def test_a_ring_of_160_points_is_this_even(strategy, numbers):
    """No node's share is beyond six standard deviations."""
    held = shares(strategy.build(nodes_of(sorted(numbers))))
    assert all(0.59 <= share * len(numbers) <= 1.56 for share in held.values())
    assert sum(held.values()) == pytest.approx(1)


@settings(max_examples=20)
@given(st.sets(st.integers(0, 9999), min_size=5, max_size=40))
def test_a_ring_of_100_points_is_less_even(numbers):
    """The ring of pylibmc has fewer points, and wider bounds."""
    held = shares(Ketama(profile="pylibmc").build(nodes_of(sorted(numbers))))
    assert all(0.51 <= share * len(numbers) <= 1.73 for share in held.values())


def number_in(key):
    """Hash a key of decimal digits to its number."""
    return int(key)


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from([1, 2**27 - 1, 2**27]),  # within one bucket of the search, and over all of them
)
def test_a_key_belongs_to_the_first_point_at_or_after_its_hash(points, spread):
    """Past the last point comes the first; of two in one place, the first node's; so with runs."""
    nodes = nodes_of(range(len(points)))
    points = [[place * spread for place in of_node] for of_node in points]
    placed = ring(nodes, points, number_in, "test")
    hash_ranges = placed.hash_ranges()
    every = sorted((place, index) for index, of_node in enumerate(points) for place in of_node)
    around = {number * spread + shift for number in range(32) for shift in (-1, 0, 1)}
    for hashed in {2**32 - 1, *around} - {-1}:
        _, index = next((point for point in every if point[0] >= hashed), every[0])
        assert placed.owner(b"%d" % hashed) is nodes[index]
        assert hash_ranges.owner(bisect_right(hash_ranges.ends, hashed)) is nodes[index]
    assert hash_ranges.ends[-1] == 2**32


def test_a_search_of_a_ring_is_as_short_with_many_nodes(monkeypatch):
    """It is of the points in one bucket of the hash space: four in the mean, whatever the nodes."""
    searched = []

    def search(places, place, start=0, end=None):
        searched.append((len(places) if end is None else end) - start)
        return bisect_left(places, place, start, end)

    monkeypatch.setattr("shardcache.strategies.ring.bisect_left", search)
    for count in (10, 100):
        owner = Ketama().build(nodes_of(range(count))).owner
        searched.clear()
        for number in range(2000):
            owner(b"%d" % number)
        assert sum(searched) / len(searched) < 5
        assert max(searched) < 25


def test_threads_find_the_same_slots():
    """Slots filled by many threads at once are those that one thread fills."""
    nodes = nodes_of(range(50))
    keys = [b"%d" % number for number in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        shared = Rendezvous().build(nodes).owner
        found = list(pool.map(lambda _: [shared(key) for key in keys], range(8)))
    slot_tables._tables.clear()  # so that this is not the same table
    alone = Rendezvous().build(nodes).owner
    assert found == [[alone(key) for key in keys]] * 8


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_crc16_gives_each_node_a_run_as_long_as_its_weight(weights):
    """Runs follow the nodes' order, and their lengths the weights, to the nearest slot."""
    nodes = nodes_of(range(len(weights)), weights)
    hash_ranges = Crc16().build(nodes).hash_ranges()
    assert [hash_ranges.owner(index) for index in range(len(nodes))] == nodes
    for weight, (start, end) in zip(weights, pairwise([0, *hash_ranges.ends]), strict=True):
        assert abs(end - start - 16_384 * weight / sum(weights)) <= 1


def test_python_memcached_lists_a_server_by_its_weight():
    """A node of weight 3 has three times the keys of a node of weight 1."""
    nodes = nodes_of([1, 2], [1, 3])
    held = shares(Modulo().build(nodes))
    assert held[nodes[1].name] == pytest.approx(0.75, abs=0.03)


def test_python_memcached_never_hashes_to_zero():
    """Its hash of 0 is 1, so the first of three servers has no such key."""
    nodes = nodes_of([1, 2, 3])
    keys = (b"key:%d" % number for number in range(10**6))
    key = next(key for key in keys if not (crc32(key) >> 16) & 0x7FFF)
    assert Modulo().build(nodes).owner(key) is nodes[1]
