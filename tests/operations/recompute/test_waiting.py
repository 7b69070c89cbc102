"""What a process does while another recomputes the value it wants."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import A_FEW_ROUND_TRIPS, AFTER_FIRST_LOOK, AFTER_MAJORITY, LONGEST_PAUSE
from shardcache.core.commands import Acquire, Cas, GetOrStub, Set
from shardcache.core.events import ComputeFinished, StampedePrevented
from shardcache.core.leases import LockPolicy
from shardcache.core.lock_providers import LockScope
from shardcache.core.values.flags import is_mark
from shardcache.errors import NodeRefusedError, RecomputeTimeoutError
from shardcache.operations.locks.acquire import attempt_or_refusal
from shardcache.operations.locks.held import HeldLock
from shardcache.operations.recompute.recompute import begin

LOCK = LockPolicy(ttl=4.0)


@pytest.mark.parametrize("term", ["condition", "ttl"])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_policy_function_that_raises_queues_no_followers(lock, term):
    """A function of the result may fail as the source may: the followers call side by side."""

    def fails(_result):
        raise ZeroDivisionError

    harness = RecomputeHarness(lock=lock, **{term: fails})
    began = harness.now
    tasks = [harness.start_call(place) for place in range(8)]
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ZeroDivisionError) for task in tasks)
    assert harness.now - began <= 2 * DELTA + 0.2


@pytest.mark.parametrize("lock", ["shard", True])
def test_an_error_queues_no_followers(lock):
    """When the leader's call raises, the followers call at once, side by side; no lock is left."""
    harness = RecomputeHarness(lock=lock)
    harness.source.error = ValueError("no such report")
    began = harness.now
    tasks = [harness.start_call(place) for place in range(8)]
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ValueError) for task in tasks)
    assert harness.source.calls == 8
    assert harness.now - began <= 2 * DELTA + 0.2
    harness.advance(0.1)
    assert [node.held(harness.lock_key) for node in harness.nodes] == [None] * 5


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_result_that_is_not_stored_queues_no_followers(lock):
    """The same holds for a result that `condition` refuses."""
    harness = RecomputeHarness(lock=lock, condition=lambda result: result > 0)
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert harness.stored() is None


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("compute", 0), ("stale", 0), ("raise", RecomputeTimeoutError)]
)
def test_a_wait_ends_after_wait_seconds(on_timeout, outcome):
    """Then the policy decides, not the leader."""
    harness = RecomputeHarness(processes=2, lock=True, wait=1.0, on_timeout=on_timeout)
    harness.source.delta = 5.0
    harness.start_call(0)
    harness.advance(0.1)
    began = harness.now
    task = harness.start_call(1)
    harness.advance(30.0, lambda: task.done)
    if outcome == 0:
        assert task.result == 0
        assert harness.now - began <= 1.0 + 5.0 + 0.1
    else:
        assert isinstance(task.error, outcome)
        assert harness.now - began <= 1.0 + 0.1
    assert harness.count("timeouts") == 1


@pytest.mark.parametrize("lock", ["shard", LockPolicy(ttl=5.0, max_hold=60.0)])
def test_a_hung_leader_keeps_its_claim_for_max_hold(lock):
    """After `max_hold` seconds its claim runs out."""
    harness = RecomputeHarness(processes=2, lock=lock, wait=300.0)
    harness.source.delta = 200.0
    harness.start_call(0)
    harness.advance(0.1)
    harness.start_call(1)
    began = harness.now
    harness.advance(290.0, lambda: harness.source.calls == 2)
    assert 58.0 <= harness.now - began <= 60.0 + 5.0 + 0.2
    harness.advance(0.0)  # what was started runs


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_refused_value_queues_no_followers(lock):
    """The followers learn that it will not be stored, and the refusals are counted."""
    harness = RecomputeHarness(lock=lock)
    execute = harness.shard.store.execute

    def refuse(command):
        if isinstance(command, Cas) and not is_mark(command.payload):
            return NodeRefusedError("out of memory")
        return execute(command)

    harness.shard.store.execute = refuse
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert harness.count("cache_errors") == harness.source.calls
    assert not any(event.stored for event in harness.events.of(ComputeFinished))


class TestWaiting:
    """What a process does that finds another recomputing the value."""

    def test_a_wait_is_counted_and_reported(self):
        """The event has the seconds, and that a recompute was spared."""
        harness = RecomputeHarness(processes=2, lock="shard")
        assert harness.call_all() == [0, 0]
        assert harness.count("lock_waits") == 1
        assert DELTA <= harness.count("wait_seconds") <= DELTA + LONGEST_PAUSE
        (event,) = harness.events.of(StampedePrevented)
        assert (event.key, event.how) == (harness.KEY.encode(), "waited")
        assert DELTA <= event.seconds <= DELTA + LONGEST_PAUSE

    def test_a_nested_call_does_not_wait(self):
        """The other process might wait for this one."""
        harness = RecomputeHarness(processes=2, lock="shard")
        harness.processes[1].cluster.io.single_flight.nested = lambda: True
        harness.start_call(0)
        harness.advance(0.05)
        began = harness.now
        assert harness.call(1) == 0
        assert harness.now - began <= DELTA + A_FEW_ROUND_TRIPS
        assert harness.count("lock_waits") == 0

    def test_the_holder_of_the_lock_has_time_to_begin(self):
        """A follower of a holder without a stub does not ask for the lock again and again."""
        harness = RecomputeHarness(processes=2, lock=True)
        harness.start_call(0)
        harness.advance(AFTER_MAJORITY)  # the nodes have agreed, and are telling it so
        harness.processes[0].pause(0.07)
        takes = harness.record_commands(Acquire)
        assert harness.call(1) == 0
        assert len(takes) == 1
        assert harness.source.calls == 1

    def test_a_follower_notices_a_removed_stub_at_once(self):
        """Its owner has released it, so another process recomputes."""
        harness = RecomputeHarness(processes=2, lock="shard")
        claim = harness.run(begin(harness.request()))
        began = harness.now
        harness.start_call(1)
        harness.advance(AFTER_FIRST_LOOK)  # it has looked for it once
        harness.run(claim.release())
        harness.advance(1.0, lambda: harness.source.calls == 1)
        assert harness.now - began <= 0.06
        harness.advance(0.0)  # what was started runs

    def test_a_failing_node_ends_the_wait(self):
        """The follower can hear nothing from it, and recomputes at once."""
        harness = RecomputeHarness(processes=2, lock="shard")
        harness.start_call(0)
        task = harness.start_call(1)
        harness.advance(0.05)
        harness.shard.up = False
        began = harness.now
        harness.advance(10.0, lambda: task.done)
        assert task.result == 0
        assert harness.now - began <= LONGEST_PAUSE + DELTA + A_FEW_ROUND_TRIPS
        assert harness.source.calls == 2

    def test_an_abandoned_recompute_is_not_awaited(self):
        """A mark found at first lets every process recompute, whichever holds the lock."""
        harness = RecomputeHarness(processes=3, lock=LOCK)
        claim = harness.run(begin(harness.request()))
        harness.run(claim.abandon(0.0))
        other = harness.processes[2]
        work = attempt_or_refusal(other.cluster, harness.KEY, LOCK, LockScope.RECOMPUTE)
        assert isinstance(harness.run(work, 2), HeldLock)
        began = harness.now
        assert harness.call(1) == 0
        assert harness.now - began <= DELTA + 0.01
        assert harness.count("lock_waits") == 0

    def test_a_lock_that_comes_too_late_is_not_awaited(self):
        """No other process has it when this one was stopped meanwhile: it recomputes at once."""
        harness = RecomputeHarness(processes=1, lock=LOCK)
        task = harness.start_call(0)
        harness.advance(1.0, lambda: any(node.held(harness.lock_key) for node in harness.nodes))
        harness.process.pause(LOCK.ttl)
        began = harness.now
        harness.finish(task)
        assert task.result == 0
        assert harness.now - began <= LOCK.ttl + DELTA + A_FEW_ROUND_TRIPS
        assert (harness.source.calls, harness.count("lock_waits")) == (1, 0)
        assert [node.held(harness.lock_key) for node in harness.nodes] == [None] * 5

    def test_one_wait_covers_all_leaders(self):
        """A follower that is always second waits `wait` seconds in all, not for each leader."""
        harness = RecomputeHarness(processes=1, lock="shard", wait=1.0)
        execute = harness.shard.store.execute

        def faster(command):
            if isinstance(command, GetOrStub):
                execute(GetOrStub(command.key, b"another's", 0.3))
            return execute(command)

        harness.shard.store.execute = faster
        began = harness.now
        assert harness.call(0) == 0
        assert 1.0 <= harness.now - began - DELTA <= 1.02
        assert harness.count("timeouts") == 1

    def test_an_old_value_ends_the_wait(self):
        """With `on_timeout="stale"` one that is kept as a last resort is served then."""
        harness = RecomputeHarness(
            processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, wait=1.0, on_timeout="stale"
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.version = 1
        harness.source.delta = 5.0
        harness.start_call(0)
        harness.advance(0.1)
        began = harness.now
        assert harness.call(1) == 0
        assert 1.0 <= harness.now - began <= 1.02
        assert harness.source.calls == 2

    def test_a_backed_off_refresh_is_not_awaited(self):
        """When a refresh has just failed, the next caller has the old value at once."""
        harness = RecomputeHarness(
            processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.error = ValueError("the source is down")
        assert harness.call(0) == 0
        assert harness.call(1) == 0
        assert harness.source.calls == 2
        assert harness.count("lock_waits") == 0

    def test_a_lock_lost_during_a_recompute_is_counted(self):
        """The value is stored all the same, if no other process stored one."""
        harness = RecomputeHarness(processes=1, lock=LOCK)
        harness.source.delta = 10.0
        task = harness.start_call(0)
        harness.advance(0.1)
        for node in harness.nodes:  # as when all were restarted and another was faster
            node.store.execute(Set(harness.lock_key, (256, b"another's"), 60.0))
        harness.advance(20.0, lambda: task.done)
        assert (task.result, harness.stored()) == (0, 0)
        assert harness.count("locks_lost") == 1
