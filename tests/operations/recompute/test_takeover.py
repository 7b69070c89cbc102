"""Another process takes over from a leader that dies, is paused or interrupted, or is voided."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import (
    A_FEW_ROUND_TRIPS,
    LONGEST_PAUSE,
    MEMCACHED,
    ON_THE_WAY,
    ON_THE_WAY_BACK,
    REDIS,
)
from shardcache.core.commands import Delete
from shardcache.core.leases import LockPolicy
from shardcache.operations.recompute import cached_value

LOCK = LockPolicy(ttl=4.0)
MODES = [False, "shard", True]


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("lock", ["shard", LOCK])
def test_a_killed_leader_is_replaced(lock, reachable):
    """Another process begins as soon as the lease of the dead one has run out, with locks and without."""
    harness = RecomputeHarness(processes=4, lock=lock)
    if not reachable:
        harness.use_lock_service().reachable = False
    harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].dead = True
    began = harness.now
    others = [harness.start_call(place) for place in (1, 2, 3)]
    ttl = LOCK.ttl if lock is LOCK else 5.0
    harness.advance(20.0, lambda: harness.source.calls == 2)
    assert harness.now - began <= ttl + LONGEST_PAUSE
    harness.advance(20.0, lambda: all(task.done for task in others))
    assert [task.result for task in others] == [0, 0, 0]
    assert harness.source.calls == 2


@pytest.mark.parametrize("lock", ["shard", LOCK])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_paused_leader_stores_nothing_late(lock, kinds):
    """After a takeover its value goes to its own caller only."""
    harness = RecomputeHarness(processes=2, lock=lock, kinds=kinds, wait=10.0)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].pause(3 * 5.0)
    harness.source.version = 1
    second = harness.start_call(1)
    harness.advance(30.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert harness.stored() == 1
    assert harness.count("rejected") == 1
    assert harness.source.calls == 2


def test_the_holder_of_the_lock_reads_once_more():
    """A value stored between the first read and the lock is served, not recomputed."""
    harness = RecomputeHarness(processes=2, lock=True)
    first = harness.start_call(0)
    second = harness.start_call(1)
    harness.advance(ON_THE_WAY_BACK)  # the node has told both that there is nothing
    harness.processes[1].pause(DELTA + 0.1)
    harness.advance(2.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 0)
    assert harness.source.calls == 1


def test_the_holder_of_the_lock_takes_over_the_stub():
    """A process that lost the lock, and still has its stub, can store nothing."""
    harness = RecomputeHarness(processes=2, lock=True)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].pause(0.75 * DELTA)
    for node in harness.nodes:
        node.store.execute(Delete(harness.lock_key))
    harness.source.version = 1
    harness.advance(DELTA / 4)
    second = harness.start_call(1)
    harness.advance(5.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert harness.stored() == 1
    assert harness.count("rejected") == 1


@pytest.mark.parametrize("lock", MODES)
def test_an_invalidation_voids_a_recompute(lock):
    """Its value is returned and not stored, and the next call recomputes."""
    harness = RecomputeHarness(processes=2, lock=lock)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.source.version = 1
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    harness.advance(1.0, lambda: first.done)
    assert first.result == 0
    assert harness.stored() is None
    assert harness.count("rejected") == 1
    assert harness.call(1) == 1
    assert harness.stored() == 1


def test_a_call_after_an_invalidation_does_not_wait_for_the_void_leader():
    """The leader still has the lock, but nothing to wait for."""
    harness = RecomputeHarness(processes=2, lock=True, wait=60.0)
    harness.source.delta = 20.0
    harness.start_call(0)
    harness.advance(1.0)
    harness.source.version, harness.source.delta = 1, DELTA
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    began = harness.now
    assert harness.call(1) == 1
    assert harness.now - began <= harness.processes[1].timeout + DELTA + 0.2
    assert harness.stored() == 1


@pytest.mark.parametrize("lock", ["shard", True])
def test_an_interrupted_leader_leaves_nothing(lock):
    """The next caller recomputes at once."""
    harness = RecomputeHarness(processes=2, lock=lock)
    harness.source.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        harness.call(0)
    assert harness.shard.held(harness.request().name) is None
    harness.source.error = None
    began = harness.now
    assert harness.call(1) == 0
    assert harness.now - began <= DELTA + A_FEW_ROUND_TRIPS


class Values(RuleBasedStateMachine):
    """Processes that compute, pause and invalidate: nothing older than an invalidation is stored."""

    @initialize(
        kinds=st.lists(st.booleans(), min_size=5, max_size=5),
        lock=st.sampled_from([False, "shard", LOCK]),
        stale=st.sampled_from([0.0, 3.0]),
        seed=st.integers(0, 99),
    )
    def begin(self, kinds, lock, stale, seed):
        """Make the harness."""
        self.harness = RecomputeHarness(
            processes=3, kinds=kinds, seed=seed, lock=lock, ttl=5.0, stale=stale, wait=2.0
        )
        self.tasks = [None] * 3
        self.voided = -1  # all versions up to this were invalidated, and that was acknowledged
        self.harness.world.watch = self.look

    def look(self):
        """Check that nothing invalidated is stored."""
        stored = self.harness.stored()
        assert stored is None or stored > self.voided, "stored over a later invalidation"

    def idle(self, place):
        """Return whether a process has nothing to do."""
        task = self.tasks[place]
        return task is None or task.done

    @rule(place=st.integers(0, 2))
    def request(self, place):
        """Begin a call."""
        if self.idle(place):
            self.tasks[place] = self.harness.start_call(place)

    @rule(place=st.integers(0, 2))
    def refresh(self, place):
        """Start a refresh, whatever is stored."""
        if self.idle(place):
            process = self.harness.processes[place]
            self.tasks[place] = process.run(cached_value.refresh(self.harness.request(process)))

    @rule(place=st.integers(0, 2))
    def invalidate(self, place):
        """Change the source, and have the value invalidated."""
        if not self.idle(place) or self.harness.processes[place].paused_until > self.harness.now:
            return
        version = self.harness.source.version
        self.harness.source.version += 1

        async def acknowledged():
            await cached_value.invalidate(self.harness.request(self.harness.processes[place]))
            self.voided = max(self.voided, version)

        self.tasks[place] = self.harness.processes[place].run(acknowledged())

    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.05, 0.5, 4.0, 7.0]))
    def pause(self, place, seconds):
        """Stop a process, at whatever it is doing."""
        self.harness.processes[place].pause(seconds)

    @rule(seconds=st.sampled_from([ON_THE_WAY, ON_THE_WAY_BACK, 0.01, 0.1, 0.21, 1.0, 3.0, 6.0]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.harness.advance(seconds)

    def teardown(self):
        """Every call has come to its end: none hangs, and none has failed."""
        if not hasattr(self, "harness"):
            return
        self.harness.world.finish(self.harness.nodes, self.harness.processes)
        for task in self.tasks:
            assert task is None or task.done
            assert task is None or task.error is None


TestValues = Values.TestCase
TestValues.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
