"""How many nodes a lock needs, and how long it holds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import ConfigurationError, LockPolicy
from shardcache.core.leases import (
    COARSE,
    COARSE_TTL,
    MAX_LOCK_NODES,
    MAX_TTL,
    lock_node_count,
    long_enough,
    node_ttl,
    quorum,
    validity,
)

TTLS = st.floats(0.001, MAX_TTL)
ELAPSED = st.floats(0.0, 10.0)


@pytest.mark.parametrize("nodes", range(1, 20))
def test_two_majorities_share_a_node(nodes):
    """So two clients never both hold a lock; an odd number of nodes wastes none."""
    count = lock_node_count(nodes)
    assert count == max(odd for odd in (1, 3, MAX_LOCK_NODES) if odd <= nodes)
    assert 2 * quorum(nodes) > nodes
    assert 2 * quorum(count) == count + 1


@given(TTLS)
def test_a_node_of_whole_seconds_is_asked_for_enough(ttl):
    """It may expire a key up to a second early, and one of a second at once."""
    asked = node_ttl(ttl, whole_seconds=True)
    assert asked == int(asked)
    assert asked >= max(ttl, COARSE_TTL)
    assert asked < ttl + COARSE or asked == COARSE_TTL
    assert node_ttl(ttl, whole_seconds=False) == ttl


@given(TTLS, ELAPSED)
def test_a_lock_holds_for_less_than_its_nodes_keep_it(ttl, elapsed):
    """By more than the drift of clocks, on nodes of either kind."""
    fine, coarse = (validity(ttl, elapsed, whole_seconds=each) for each in (False, True))
    assert coarse <= fine < ttl - elapsed
    assert coarse < node_ttl(ttl, whole_seconds=True) - COARSE - elapsed
    assert validity(ttl, elapsed + 1.0, whole_seconds=False) == pytest.approx(fine - 1.0)


@pytest.mark.parametrize(
    ("ttl", "elapsed", "whole_seconds", "seconds"),
    [
        (10.0, 0.0, False, 9.898),
        (10.0, 0.0, True, 8.898),
        (1.0, 0.0, True, 0.988),
        (0.5, 0.0, True, 0.493),
        (1.0, 2.0, False, -1.012),
    ],
)
def test_a_lock_holds_this_long(ttl, elapsed, whole_seconds, seconds):
    """1 % and 2 ms less than its ttl; a second less where a node of whole seconds may be early."""
    assert validity(ttl, elapsed, whole_seconds=whole_seconds) == pytest.approx(seconds)


def test_a_tenth_of_the_ttl_is_worth_holding():
    """Anything shorter is given back."""
    assert long_enough(0.5, 5.0)
    assert not long_enough(0.499, 5.0)
    assert not long_enough(-1.0, 5.0)


def test_a_policy_keeps_seconds():
    """A `timedelta` is taken, and its seconds are kept."""
    policy = LockPolicy(ttl=timedelta(seconds=2), max_hold=30, backoff=lambda _: 0.1)
    assert (policy.ttl, policy.max_hold) == (2.0, 30.0)
    assert LockPolicy() == LockPolicy(ttl=5, renew=True, max_hold=60)


def test_every_bad_field_of_a_policy_is_listed():
    """Each with what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        LockPolicy(ttl=0, max_hold="x", backoff=7)
    assert caught.value.faults == (
        "lock: ttl must be above zero",
        "lock: max_hold must be seconds as a number",
        "lock: backoff must be a wait strategy of tenacity, not 7",
    )
    with pytest.raises(ConfigurationError, match=r"^lock: ttl must be at most 86400 seconds$"):
        LockPolicy(ttl=MAX_TTL + 1)
