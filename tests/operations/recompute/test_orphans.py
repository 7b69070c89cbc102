"""`on_cancel`: what becomes of a recompute whose callers were all cancelled, in virtual time."""

from __future__ import annotations

import gc

import pytest

from operations.cached_harness import DELTA
from operations.virtual import LoopHarness
from shardcache.core.leases import LockPolicy
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.blocks import refresh

MODES = [False, "shard", True]


@pytest.fixture
def make_harness():
    """Return a maker of harnesses, which are checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(LoopHarness(**terms))
        return made[-1]

    yield make
    for each in made:
        each.close()


def cancel(harness, count=3):
    """Begin calls, and cancel all of them while the function runs."""
    tasks = [harness.start_call() for _ in range(count)]
    harness.advance(DELTA / 2)
    for task in tasks:
        task.cancel()
    harness.results(tasks)


@pytest.mark.parametrize("lock", MODES)
class TestOrphans:
    """A recompute that no caller waits for."""

    def test_it_is_cancelled_by_default(self, make_harness, lock):
        """The next caller calls the function again."""
        harness = make_harness(lock=lock)
        cancel(harness)
        harness.advance(DELTA)
        assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 2
        assert harness.protections[0].counters.counts["orphaned"] == 0

    def test_it_goes_on_and_stores_if_the_policy_says_so(self, make_harness, lock):
        """Nothing is called again, in this process or another."""
        harness = make_harness(lock=lock, on_cancel="finish")
        cancel(harness)
        harness.advance(DELTA)
        harness.version = 1
        assert harness.results([harness.start_call(), harness.start_call(1)]) == [0, 0]
        assert harness.calls == 1
        assert harness.protections[0].counters.counts["orphaned"] == 1

    def test_later_callers_join_it(self, make_harness, lock):
        """Even if all callers are more impatient than the function is slow."""
        harness = make_harness(lock=lock, on_cancel="finish", wait=60.0)
        harness.delta = 4 * DELTA
        for _ in range(4):
            cancel(harness)
        assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 1

    def test_an_invalidation_voids_it(self, make_harness, lock):
        """Its value is not stored, and no caller joins it."""
        harness = make_harness(lock=lock, on_cancel="finish")
        cancel(harness)
        harness.void(1, "invalidate")
        assert harness.results([harness.start_call()]) == [1]
        harness.advance(DELTA)
        assert harness.results([harness.start_call()]) == [1]

    def test_it_ends_with_the_longest_hold_of_a_lock(self, make_harness, lock):
        """A function that hangs does not for ever keep later callers from calling it."""
        harness = make_harness(
            lock=LockPolicy(max_hold=10.0) if lock is True else lock, on_cancel="finish", wait=100.0
        )
        harness.delta = 1000.0
        cancel(harness)
        harness.advance((10.0 if lock is True else 60.0) - DELTA)
        assert harness.busy[0] == 1
        harness.advance(2 * DELTA)
        assert harness.busy[0] == 0
        harness.delta = DELTA
        assert harness.results([harness.start_call()]) == [0]

    @pytest.mark.parametrize("block", [False, True])
    def test_a_forced_refresh_goes_on_as_well(self, make_harness, lock, block):
        """By `f.refresh`, and in a `refresh` block."""
        harness = make_harness(lock=lock, on_cancel="finish")
        harness.results([harness.start_call()])
        harness.version = 1
        if block:
            with refresh():
                cancel(harness, 1)
        else:
            task = harness.loop.create_task(cached_value.refresh(harness.request(0)))
            harness.advance(DELTA / 2)
            task.cancel()
            harness.results([task])
        harness.advance(DELTA)
        assert harness.results([harness.start_call()]) == [1]


def test_an_error_of_an_orphan_is_no_error_of_the_loop(make_harness):
    """It reaches no caller, and asyncio does not complain that it was never read."""
    harness = make_harness(on_cancel="finish", condition=lambda _: 1 / 0)
    complaints = []
    harness.loop.set_exception_handler(lambda _, context: complaints.append(context))
    cancel(harness)
    harness.advance(DELTA)
    gc.collect()
    assert harness.calls == 1
    assert complaints == []
