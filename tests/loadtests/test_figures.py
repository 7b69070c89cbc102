"""Figures of many processes add up, and answer for any stretch of a run and any node."""

from __future__ import annotations

import json
from itertools import pairwise

from figures import Figures, Window, bursts
from hypothesis import given
from hypothesis import strategies as st

MOMENTS = st.floats(0, 20)
NODES = st.sampled_from(["a", "b", "c"])
CALLS = st.lists(st.tuples(MOMENTS, NODES, st.floats(1e-6, 1.0)), max_size=40)


def of_calls(calls) -> Figures:
    """Return the figures of a process that made these calls."""
    figures = Figures()
    for moment, node, seconds in calls:
        figures.call(moment, node, seconds)
        figures.count(moment, node, "hits")
        figures.lag(moment, seconds)
        figures.event(moment, "ejected", node)
    return figures


@given(CALLS, CALLS)
def test_figures_of_processes_add_up(one, other):
    """What two processes took, sent as JSON and added, is what one would have seen alone."""
    merged = Figures()
    for calls in (one, other):
        merged.add(json.loads(json.dumps(of_calls(calls).take())))
    alone = of_calls([*one, *other])
    assert merged.total("calls") == alone.total("calls") == len(one) + len(other)
    assert merged.by_node("hits") == alone.by_node("hits")
    for share in (0.5, 0.99, 1.0):
        assert merged.percentile(share) == alone.percentile(share)
        assert merged.lag_percentile(share) == alone.lag_percentile(share)
    assert merged.moments("ejected") == alone.moments("ejected")


@given(CALLS)
def test_what_was_taken_is_not_taken_again(calls):
    """A process reports each call once."""
    figures = of_calls(calls)
    figures.take()
    assert Figures.of(figures.take()).total("calls") == 0


@given(CALLS, MOMENTS)
def test_stretches_and_nodes_part_the_calls(calls, border):
    """Each call belongs to one stretch and to one node."""
    figures = of_calls(calls)
    border = border // 0.5 * 0.5
    early, late = Window(0, border), Window(border, 21)
    assert figures.total("calls", early) + figures.total("calls", late) == len(calls)
    assert sum(figures.by_node("calls").values()) == len(calls)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
def test_a_percentile_is_a_length_that_occurred(lengths):
    """It is one of the lengths, but for the 5 % that rounding to two digits costs."""
    figures = of_calls([(0, "a", seconds) for seconds in lengths])
    for share in (0.01, 0.5, 1.0):
        at_least = sorted(lengths)[max(0, -(-int(share * 1000 * len(lengths)) // 1000) - 1)]
        measured = figures.percentile(share)
        assert any(abs(measured - one) <= 0.05 * one + 1e-6 for one in lengths)
        assert measured >= 0.94 * at_least - 1e-6


def test_a_percentile_of_known_lengths():
    """Of a hundred lengths the 99th stands for 99 %, and the largest for all."""
    figures = of_calls([(1, "a", number / 1000) for number in range(1, 101)])
    assert figures.percentile(0.5) == 0.050
    assert figures.percentile(0.99) == 0.099
    assert figures.percentile(1.0) == 0.1
    assert figures.percentile(0.99, where="b".__eq__) is None


def test_a_hit_rate_needs_reads():
    """Without any there is none; with some it is hits among hits and misses."""
    figures = Figures()
    assert figures.hit_rate() is None
    figures.count(1, "a", "hits", 3)
    figures.count(2, "b", "misses")
    assert figures.hit_rate() == 0.75
    assert figures.hit_rate(Window(2, 3)) == 0
    figures.count(2, "b", "expired", 4)
    assert figures.hit_rate() == 3 / 8
    assert figures.hit_rate(kept=True) == 7 / 8


def test_the_first_step_of_a_count_is_of_one_node():
    """Another node's counts, and those before the stretch, do not stand for it."""
    figures = Figures()
    for moment, node in ((1.2, "a"), (3.0, "b"), (4.7, "a")):
        figures.count(moment, node, "hits")
    assert figures.first("hits", Window(2, 9), "a") == 4.5
    assert figures.first("misses", Window(2, 9), "a") is None


def test_the_latest_step_is_the_one_with_calls():
    """Counts without a call do not make a step."""
    figures = Figures()
    assert figures.latest() == 0
    figures.call(3.7, "a", 0.001)
    figures.count(9, "a", "cpu")
    assert figures.latest() == 3.5


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0.1, 5))
def test_bursts_part_the_moments_at_the_gaps(moments, gap):
    """All moments are in a burst, and there are as many bursts as gaps, and one."""
    ordered = sorted(moments)
    gaps = sum(after - before > gap for before, after in pairwise(ordered))
    sizes = bursts(moments, gap)
    assert sum(sizes) == len(moments)
    assert len(sizes) == (gaps + 1 if moments else 0)
