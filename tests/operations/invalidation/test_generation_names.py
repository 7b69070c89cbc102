"""Which generation is believed, and which of many is in force."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.generations import (
    current_generation,
    is_decided,
    next_generation,
    parse_generation,
)
from shardcache.core.leases import quorum
from shardcache.core.values.flags import MARK_FLAGS

DAY = 24 * 3600.0


class TestNames:
    """Which generation is believed, and which of many is in force."""

    @given(st.lists(st.sampled_from("123456"), min_size=1, max_size=5), st.integers(0, 4))
    def test_the_generation_of_a_majority_is_never_missed(self, names, more):
        """It or a newer one is in force, whichever of the other nodes are heard."""
        nodes = len(names) + more
        if nodes % 2 == 0 or len(names) < quorum(nodes):
            return
        for unheard in itertools.product(["", "3", "6"], repeat=more):
            told = sorted([*names, *unheard], reverse=True)
            assert current_generation(names, nodes) >= told[quorum(nodes) - 1]

    @given(st.lists(st.sampled_from("123456"), min_size=3, max_size=5))
    def test_a_minority_is_not_believed(self, names):
        """When all nodes are heard, fewer than half of them cannot set a generation alone."""
        if len(names) % 2:
            wanted = quorum(len(names))
            assert current_generation(names, len(names)) == sorted(names, reverse=True)[wanted - 1]
            assert is_decided(names, len(names))

    @given(st.lists(st.sampled_from("1234"), min_size=1, max_size=5), st.sampled_from([3, 5]))
    def test_a_decided_generation_stays_decided(self, names, nodes):
        """Nodes that are heard later cannot change it."""
        if len(names) <= nodes and is_decided(names, nodes):
            for more in itertools.product(["", "2", "9"], repeat=nodes - len(names)):
                assert current_generation([*names, *more], nodes) == current_generation(
                    names, nodes
                )

    @given(st.floats(0, 10**10), st.floats(-DAY + 1, DAY - 1), st.binary(min_size=2, max_size=2))
    def test_a_new_generation_is_newer_and_believed(self, wall, skew, chance):
        """It is believed by processes whose clocks differ by less than a day."""
        first = next_generation([""], [], max(0.0, wall + skew), chance)
        assert parse_generation((MARK_FLAGS, first.encode()), wall) == first
        second = next_generation(["", first], [], wall, chance)
        assert second > first
        assert parse_generation((MARK_FLAGS, second.encode()), wall) == second
