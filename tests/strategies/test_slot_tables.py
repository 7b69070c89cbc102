"""Rendezvous tables are computed once: for all placements of equal nodes, and after a change of nodes."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from contextlib import ExitStack
from itertools import pairwise
from random import Random
from weakref import WeakValueDictionary

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import AsyncClient, Client
from shardcache.core.placement.nodes import Node
from shardcache.strategies import slot_tables
from shardcache.strategies.rendezvous import Rendezvous
from shardcache.strategies.slot_tables import Ranking, SlotTable, slot_table

MANY = 64
KEYS = [b"key:%d" % number for number in range(300)]


def nodes(count, weight=lambda _number: 1):
    """Return nodes of a test's own, so that no other test's table is theirs."""
    return [Node(f"memory://shelf-{number}", weight=weight(number)) for number in range(count)]


class Dropping(WeakValueDictionary):
    """Tables whose references are dead."""

    def valuerefs(self):
        """Return as many references as there are tables."""
        return [lambda: None for _ in self]


@pytest.fixture
def hashes(monkeypatch):
    """Count the hashes that scores are made of."""
    slots = []
    for name in ("xxh3_64_digest", "xxh3_64_intdigest"):
        digest = getattr(slot_tables, name)

        def count(seed, slot=None, digest=digest):
            if slot is None:
                return digest(seed)
            slots.append(slot)
            return digest(seed, slot)

        monkeypatch.setattr(slot_tables, name, count)
    return slots


def owners(listed, keys=KEYS):
    """Return the names of the owners of keys, and the placement, which must be kept for its table."""
    placement = Rendezvous().build(listed)
    return [placement.owner(key).name for key in keys], placement


def test_equal_nodes_share_one_table(hashes):
    """A second client of the same nodes hashes nothing for the slots that the first has used."""
    first, kept = owners(nodes(MANY))
    assert len(hashes) == MANY * len(set(hashes))
    hashes.clear()
    moved = [Node("memory://elsewhere", name=node.name) for node in reversed(nodes(MANY))]
    assert owners(moved)[0] == first
    assert not hashes
    assert kept.owner(KEYS[0]).url.endswith(first[0]), "each placement returns its own nodes"


def test_clients_share_one_table(hashes):
    """Both kinds of client, with other addresses, namespaces and strategies' options."""
    with Client("memory://a,b,c") as client:
        first = [client.node_for(key).name for key in KEYS]
        hashes.clear()
        other = AsyncClient(["memory://c", "memory://b", "memory://a"])
        assert [other.node_for(key).name for key in KEYS] == first
    assert not hashes


def test_no_table_outlives_its_placements():
    """Tables are kept by placements alone."""
    gc.collect()
    before = len(slot_tables._tables)
    placement = Rendezvous().build(nodes(MANY))
    assert len(slot_tables._tables) == before + 1
    del placement
    gc.collect()
    assert len(slot_tables._tables) == before


@pytest.mark.parametrize(("count", "bytes_a_slot"), [(1, 1), (255, 1), (256, 2)])
def test_a_slot_takes_a_byte_or_two(count, bytes_a_slot):
    """64 KB for up to 255 nodes, 128 KB above."""
    table = slot_table(Ranking.of(65_536, nodes(count)))
    assert sys.getsizeof(table.places) < 65_536 * bytes_a_slot + 200


def test_a_further_client_is_small():
    """An idle client of eight nodes takes 64 KB at most beside the table.

    Of three further clients the smallest counts: a list of all clients in the process grows in steps,
    and one client pays the step.
    """
    urls = [f"memcached://10.0.0.{number}" for number in range(8)]
    with ExitStack() as clients:
        clients.enter_context(Client(urls))
        gc.collect()
        tracemalloc.start()
        try:
            totals = [tracemalloc.get_traced_memory()[0]]
            for _ in range(3):
                clients.enter_context(Client(urls))
                totals.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert min(after - before for before, after in pairwise(totals)) < 64 * 1024


@pytest.mark.parametrize("weight", [lambda _number: 1, lambda number: number % 3 + 1])
def test_after_a_change_only_new_nodes_are_hashed(hashes, weight):
    """A node that comes costs two hashes a used slot; one that leaves costs them for its own slots only."""
    listed = nodes(MANY + 1, weight)
    _, placement = owners(listed[:-1])
    hashes.clear()
    _, grown = owners(listed)
    assert len(hashes) == 2 * len(set(hashes))
    hashes.clear()
    _, shrunk = owners(listed[:-2])
    lost = {slot for slot in set(hashes) if hashes.count(slot) > 1}
    assert len(lost) < len(set(hashes)) / 10
    assert all(hashes.count(slot) == MANY - 1 for slot in lost)
    del placement, grown, shrunk


def test_a_table_that_another_thread_drops_is_no_model(hashes, monkeypatch):
    """Its reference may be dead by the time it is looked at."""
    _, placement = owners(nodes(MANY))
    monkeypatch.setattr(slot_tables, "_tables", Dropping(slot_tables._tables))
    hashes.clear()
    _, grown = owners(nodes(MANY + 1))
    assert len(hashes) == (MANY + 1) * len(set(hashes))
    del placement, grown


@given(st.data())
def test_a_table_made_from_another_is_equal(data):
    """Whatever came, left or changed its weight, in slots that were used and in others."""
    numbers = st.sampled_from([1, 1, 1, 2, 5.5])
    before = [
        Node("memory://x", name=f"n{index}", weight=data.draw(numbers)) for index in range(40)
    ]
    after = [
        *data.draw(st.permutations(before))[data.draw(st.integers(0, 10)) :],
        *(Node("memory://x", name=f"m{index}") for index in range(data.draw(st.integers(0, 10)))),
    ]
    if data.draw(st.booleans()):
        after[0] = Node("memory://x", name=after[0].name, weight=3)
    ranking = Ranking.of(65_536, sorted(after, key=lambda node: node.name))
    old = SlotTable(Ranking.of(65_536, sorted(before, key=lambda node: node.name)), None)
    if (old.ranking.weights is None) != (ranking.weights is None):
        return
    fresh, derived = SlotTable(ranking, None), SlotTable(ranking, old)
    slots = Random(1).sample(range(65_536), 60)
    for slot in slots[:40]:
        old.fill(slot)
    assert [derived.fill(slot) for slot in slots] == [fresh.fill(slot) for slot in slots]
