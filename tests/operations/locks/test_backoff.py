"""The pauses of one that waits for a lock or a value."""

from __future__ import annotations

import pytest
import tenacity

from operations.harness import Harness, LockHarness
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockTimeout
from shardcache.operations.locks.acquire import acquire
from shardcache.operations.locks.backoff import FACTOR, FIRST, SLOWEST, SPREAD, Backoff


def pauses(count, strategy=None, chance=0.5):
    """Return the first pauses of a waiter with this luck."""
    io = Harness().cluster.io
    io.random = lambda: chance
    backoff = Backoff(io, strategy)
    return [backoff.pause() for _ in range(count)]


@pytest.mark.parametrize(("chance", "spread"), [(0.0, 1 - SPREAD), (0.5, 1.0), (1.0, 1 + SPREAD)])
def test_pauses_grow_to_a_limit(chance, spread):
    """Each is spread by chance, so that many waiters do not ask at once."""
    grown = [min(SLOWEST, FIRST * FACTOR**turn) for turn in range(8)]
    assert grown[-1] == SLOWEST
    assert pauses(8, chance=chance) == pytest.approx([spread * seconds for seconds in grown])


def test_a_strategy_of_tenacity_replaces_them():
    """It is asked before each try with the number of the try, and spread by itself alone."""
    assert pauses(4, tenacity.wait_exponential(multiplier=0.1, max=0.5), chance=0.0) == [
        pytest.approx(seconds) for seconds in (0.1, 0.2, 0.4, 0.5)
    ]
    chained = tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(2))
    assert pauses(3, chained) == [1.0, 2.0, 2.0]


def test_a_strategy_sees_one_state_for_all_tries():
    """It may keep something there."""
    seen = []
    pauses(3, lambda state: seen.append((id(state), state.attempt_number)) or 0)
    assert [number for _, number in seen] == [1, 2, 3]
    assert len({state for state, _ in seen}) == 1


def test_a_pause_is_never_negative():
    """Whatever a strategy returns."""
    assert pauses(1, lambda _: -1) == [0.0]


def test_a_waiter_pauses_as_its_policy_says():
    """Between two tries nothing is asked."""
    harness = LockHarness(kinds=(False,))
    holder, waiter, *_ = harness.processes
    harness.attempt(holder, LockPolicy(ttl=60.0, renew=False))
    asked = harness.record_commands()
    policy = LockPolicy(ttl=60.0, renew=False, backoff=tenacity.wait_fixed(2))
    task = harness.start(acquire(waiter.cluster, harness.NAME, policy, 9.0), waiter)
    harness.finish(task)
    assert isinstance(task.error, LockTimeout)
    assert len(asked) == 6  # after 0, 2, 4, 6 and 8 seconds, and at the end
