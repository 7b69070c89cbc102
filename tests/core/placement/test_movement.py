"""Movement between placements is counted: place by place, by a sample, or by the caller's keys."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import Node
from shardcache.core.placement.movement import (
    EFFORT,
    QUICK_EFFORT,
    QUICK_SAMPLE,
    SAMPLE,
    Movement,
    sample_keys,
    shares,
)
from shardcache.core.placement.strategy import HashRanges

NODES = {name: Node(f"memory://{name}") for name in "abc"}


class Keyed:
    """A placement by the last digit of a key, without ranges."""

    def __init__(self, names):
        self.names = names

    def owner(self, key):
        """Return the node of the digit."""
        return NODES[self.names[key[-1] % len(self.names)]]


class Ranged(Keyed):
    """A placement of ranges of a hash space, each of some length."""

    def __init__(self, names, lengths, *, space="test", cost=1):
        super().__init__(names)
        self.ranges = HashRanges(
            space, list(accumulate(lengths)), lambda place: NODES[names[place]], cost
        )

    def hash_ranges(self):
        """Return the ranges."""
        return self.ranges


class Unmeasured(Keyed):
    """A placement that could have ranges, and has none."""

    def hash_ranges(self):
        """Return nothing, as the protocol allows."""


def halves(names, size=10, **options):
    """Return a placement of as many ranges of one length as there are names."""
    return Ranged(names, [size] * len(names), **options)


def partitions(size=30):
    """Return placements of a space of `size` places, some of their ranges empty."""
    cuts = st.lists(st.integers(0, size), max_size=6).map(sorted)
    return cuts.flatmap(
        lambda each: st.lists(
            st.sampled_from("abc"), min_size=len(each) + 1, max_size=len(each) + 1
        ).map(
            lambda names: Ranged(
                names,
                [end - start for start, end in zip([0, *each], [*each, size], strict=True)],
            )
        )
    )


def owner_at(placement, place):
    """Return the name of the node that has a place."""
    ends = placement.ranges.ends
    return placement.ranges.owner(bisect_right(ends, place)).name


@given(partitions(), partitions())
def test_ranges_are_measured_as_if_place_by_place(before, after):
    """The flows are those of all places of the space, and none of them is empty."""
    movement = Movement.between(before, after)
    counted = Counter((owner_at(before, place), owner_at(after, place)) for place in range(30))
    assert movement == ("key space", counted)
    assert Movement.estimate(before, after) == movement
    assert movement.total == 30


def test_shares_are_of_all_that_was_counted():
    """Who moves, who stays, and what each node has before and after."""
    movement = Movement.between(halves("ab"), halves("bb"))
    assert movement.flows == {("a", "b"): 10, ("b", "b"): 10}
    assert (movement.total, movement.moving, movement.moved) == (20, 10, 0.5)
    assert movement.before == {"a": 0.5, "b": 0.5}
    assert movement.after == {"b": 1.0}
    assert shares(Ranged("cab", [5, 5, 10])) == {"a": 0.25, "b": 0.5, "c": 0.25}


def test_the_callers_keys_are_counted():
    """By keys even where ranges could be measured; without keys nothing moves."""
    keys = [b"0", b"1", b"3"]
    movement = Movement.between(halves("ab"), halves("bb"), keys)
    assert movement == ("keys", {("a", "b"): 1, ("b", "b"): 2})
    assert movement.moved == pytest.approx(1 / 3)
    nothing = Movement.between(halves("ab"), halves("bb"), [])
    assert (nothing.total, nothing.moved, nothing.before, nothing.after) == (0, 0.0, {}, {})
    assert shares(halves("ab"), keys) == pytest.approx({"a": 1 / 3, "b": 2 / 3})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Keyed("ab"), halves("ab")),
        (halves("ab"), Keyed("ab")),
        (halves("ab"), Unmeasured("ab")),
        (halves("ab"), halves("ab", space="other")),
    ],
    ids=["ranges are new", "ranges are gone", "no ranges", "another hash"],
)
def test_placements_without_a_common_space_are_sampled(before, after):
    """The sample is fixed, so two measurements agree."""
    exact, quick = Movement.between(before, after), Movement.estimate(before, after)
    assert (exact.basis, exact.total, exact.moved) == ("sample", SAMPLE, 0.0)
    assert (quick.basis, quick.total, quick.moved) == ("sample", QUICK_SAMPLE, 0.0)
    assert exact == Movement.between(before, after)


def test_sample_keys_are_the_same_every_time():
    """They are distinct, and a smaller sample begins a larger one."""
    assert sample_keys(2) == [b"sample:0", b"sample:1"]
    assert len(set(sample_keys())) == SAMPLE
    assert sample_keys()[:100] == sample_keys(100)


def test_every_nth_range_is_measured_where_all_would_take_too_long():
    """As many as the effort allows, evenly spread; the shares are then a sample's."""
    names = "ab" * 30
    costly = EFFORT // len(names)
    movement = Movement.between(halves(names, cost=costly), halves(names, cost=2 * costly))
    assert movement.basis == "sample"
    assert movement.total == 10 * len(names) / 3
    assert movement.after == {"a": 0.5, "b": 0.5}
    assert movement.moved == 0.0


@pytest.mark.parametrize("size", [1, 7], ids=["slots", "ranges"])
def test_an_estimate_looks_at_places_spread_evenly(size):
    """Where measuring all ranges takes longer than milliseconds, some thousand places do."""
    names = "a" * 5_000 + "bc" * 5_000 + "b" * 5_000
    before, after = halves(names, size), halves(names.replace("c", "a"), size)
    estimate = Movement.estimate(before, after)
    assert estimate.basis == "sample"
    assert 4_000 < estimate.total < 5_000
    assert estimate.moved == pytest.approx(0.25, abs=0.01)
    assert estimate.before == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25}, abs=0.01)
    assert set(estimate.flows) == {("a", "a"), ("b", "b"), ("c", "a")}


def test_an_estimate_looks_at_one_place_at_least():
    """However costly an owner is."""
    before, after = halves("abc", cost=QUICK_EFFORT), halves("aaa", cost=QUICK_EFFORT)
    assert Movement.estimate(before, after) == ("sample", {("b", "a"): 1})
