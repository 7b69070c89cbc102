"""A caller that is stopped anywhere in a recompute leaves no stub and no mark behind."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import A_FEW_ROUND_TRIPS, MEMCACHED, REDIS, ActAfter
from operations.later import Cancelled
from shardcache.core.commands import GetOrStub
from shardcache.core.values.flags import is_abandoned
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.claims import StubClaim

MODES = [False, "shard", True]


def cancelled_at_each_step(make, start):
    """Yield harnesses in which a call was cancelled after one more event each time, until it ends."""
    for steps in range(1, 200):
        harness = make()
        task = start(harness)
        harness.world.watch = ActAfter(steps + 1, task.cancel)  # once it has begun
        harness.advance(5.0, lambda task=task: task.done)
        harness.world.watch = lambda: None
        assert task.done
        if task.error is None:
            assert steps > 10
            return
        harness.advance(A_FEW_ROUND_TRIPS)
        yield harness
    pytest.fail("the call does not end")


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize(("lock", "available"), [*((lock, True) for lock in MODES), (True, False)])
def test_a_cancelled_miss_leaves_no_stub(lock, available, kinds):
    """The next caller, of another process, has its value after one recompute; also without a lock."""

    def make():
        harness = RecomputeHarness(processes=2, kinds=kinds, lock=lock)
        if not available:
            harness.use_lock_service().reachable = False
        return harness

    for harness in cancelled_at_each_step(make, RecomputeHarness.start_call):
        held = harness.shard.held(harness.request().name)
        assert held is None or harness.stored() == 0
        began = harness.now
        assert harness.call(1) == 0
        assert harness.now - began <= DELTA + A_FEW_ROUND_TRIPS


@pytest.mark.parametrize("stored", [True, False])
def test_a_caller_that_is_interrupted_while_it_marks_its_stub_leaves_none(monkeypatch, stored):
    """Memcached may have stored the mark by then, and changed the stub's token."""
    harness = RecomputeHarness(processes=2, kinds=MEMCACHED, lock=True)
    harness.use_lock_service().reachable = False
    renew = StubClaim.renew

    async def renew_and_interrupt(claim, ttl):
        token = claim.token
        if stored:
            await renew(claim, ttl)
            claim.token = token  # the reply was not read
        raise Cancelled

    with monkeypatch.context() as patch:
        patch.setattr(StubClaim, "renew", renew_and_interrupt)
        with pytest.raises(Cancelled):
            harness.call(0)
    assert harness.shard.held(harness.request().name) is None
    assert harness.call(1) == 0


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
@pytest.mark.parametrize("terms", [{"stale": 60.0, "refresh": "inline"}, {"stale_if_error": 60.0}])
def test_a_cancelled_refresh_leaves_no_mark(terms, kinds):
    """The old value stays, or the new one is stored, and the next refresh may begin at once."""

    def make():
        harness = RecomputeHarness(processes=2, kinds=kinds, ttl=10.0, **terms)
        harness.call()
        harness.advance(15.0)
        harness.source.version = 1
        return harness

    for harness in cancelled_at_each_step(make, RecomputeHarness.start_call):
        assert harness.shard.held(harness.request().refresh_key) is None
        assert harness.stored() in {0, 1}
        assert harness.call(1) == 1
        assert harness.stored() == 1


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
def test_a_cancelled_forced_refresh_leaves_no_stub(kinds):
    """What it removed is gone, or its value is stored."""

    def make():
        return RecomputeHarness(processes=2, kinds=kinds)

    def start(harness):
        return harness.start(cached_value.refresh(harness.request()))

    for harness in cancelled_at_each_step(make, start):
        assert harness.shard.held(harness.request().name) is None or harness.stored() == 0


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
def test_a_cancelled_forced_refresh_of_a_value_leaves_no_mark(kinds):
    """The value stays, or the new one is stored, and the next refresh leaves it to others as well."""

    def make():
        harness = RecomputeHarness(processes=2, kinds=kinds)
        harness.call()
        harness.source.version = 1
        return harness

    def start(harness):
        return harness.start(cached_value.refresh(harness.request()))

    for harness in cancelled_at_each_step(make, start):
        assert harness.shard.held(harness.request().refresh_key) is None
        assert harness.stored() in {0, 1}


def test_a_stub_that_is_on_its_way_is_removed_when_it_has_come():
    """The caller is gone by then, and waits for nothing."""
    harness = RecomputeHarness(processes=1)
    stubs = harness.record_commands(GetOrStub)
    task = harness.start_call()
    harness.advance(1.0, lambda: bool(stubs))  # the node has stored it, and the reply is on its way
    name = harness.request().name
    task.cancel()
    harness.advance(0.0)
    assert task.done
    assert harness.shard.held(name) is not None
    harness.advance(A_FEW_ROUND_TRIPS)
    assert harness.shard.held(name) is None
    assert harness.source.calls == 0


def test_a_source_that_is_cancelled_leaves_no_mark_of_an_abandoned_recompute():
    """Followers of other processes begin at once, as after a release."""
    harness = RecomputeHarness(processes=2, lock="shard")
    task = harness.start_call()
    harness.advance(DELTA / 2)
    follower = harness.start_call(1)
    harness.advance(DELTA / 8)
    task.cancel()
    harness.advance(A_FEW_ROUND_TRIPS)
    held = harness.shard.held(harness.request().name)
    assert held is None or not is_abandoned(held[0])
    harness.finish(follower)
    assert (follower.result, harness.source.calls) == (0, 2)


def test_a_cancelled_try_leaves_the_mark_of_another_process():
    """That one goes on refreshing the value."""

    def make():
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=60.0, refresh="inline")
        harness.call()
        harness.advance(15.0)
        harness.source.version, harness.source.delta = 1, 5.0
        harness.other = harness.start_call(1)
        harness.advance(A_FEW_ROUND_TRIPS)
        harness.mark = harness.shard.held(harness.request().refresh_key)[0]
        return harness

    for steps in range(1, 40):
        harness = make()
        task = harness.start_call()
        harness.world.watch = ActAfter(steps + 1, task.cancel)
        harness.advance(1.0, lambda task=task: task.done)
        harness.world.watch = lambda: None
        harness.advance(A_FEW_ROUND_TRIPS)
        assert harness.shard.held(harness.request().refresh_key)[0] == harness.mark
        harness.finish(harness.other)
        assert harness.other.result == harness.stored() == 1
        if task.error is None:
            break
    assert task.result == 0
    assert steps > 4


def test_a_forked_child_leaves_its_parents_stub():
    """A function may fork; the child that is stopped within it has no part in the recompute."""
    harness = RecomputeHarness(processes=1, lock="shard")
    io = harness.cluster.io
    task = harness.start_call()
    harness.advance(DELTA / 2)
    stub = harness.shard.held(harness.request().name)
    io.process = lambda: 2
    task.cancel()
    harness.advance(A_FEW_ROUND_TRIPS)
    assert task.done
    assert harness.shard.held(harness.request().name) == stub
