"""A result that cannot be stored is returned to all who wait for it, and holds no caller up."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import MEMCACHED, MIXED, REDIS
from operations.virtual import LoopHarness
from shardcache.core.events import ComputeFinished
from shardcache.core.values.flags import is_abandoned
from shardcache.errors import EncodeError, UncacheableResultError
from shardcache.operations.recompute import cached_value

LOCKS = [False, "shard", True]


class Notes:
    """What a process reports, in order."""

    def __init__(self, *processes):
        self.lines = []
        for process in processes:
            process.protection.notes = self

    def result_not_stored(self, function, error):
        """Note a result."""
        assert isinstance(error, EncodeError)
        self.lines.append(function)


def uncacheable(**options):
    """Return a harness whose source returns what no codec takes."""
    harness = RecomputeHarness(**options)
    harness.source.version = object()
    return harness


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED, MIXED])
@pytest.mark.parametrize("lock", LOCKS)
def test_no_caller_queues(lock, kinds):
    """Who waits in another process is told at once, and all recompute side by side."""
    harness = uncacheable(lock=lock, kinds=kinds)
    began = harness.now
    assert harness.call_all() == [harness.source.version] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert harness.source.calls == 8
    assert harness.count("uncached") == 8
    assert harness.stored() is None


@pytest.mark.parametrize("lock", LOCKS)
def test_followers_in_the_process_recompute_side_by_side(lock):
    """What cannot be copied belongs to one caller: a second reader of an iterator finds nothing."""
    harness = LoopHarness(clients=1, lock=lock, tags=())
    harness.version = object()
    began = harness.now
    tasks = [harness.start_call() for _ in range(8)]
    assert harness.results(tasks) == [harness.version] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert (harness.calls, harness.most_busy) == (8, 7)
    assert harness.protections[0].counters.counts["uncached"] == 1
    harness.close()


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_is_left(lock):
    """Neither lock nor stub: a mark tells that the recompute was abandoned, and ends by itself."""
    harness = uncacheable(processes=2, lock=lock)
    name = harness.request().name
    harness.call(0)
    harness.advance(0.1)
    assert [node.held(harness.lock_key) for node in harness.nodes] == [None] * 5
    assert is_abandoned(harness.shard.held(name)[0])
    harness.advance(3.0)
    assert harness.shard.held(name) is None


def test_it_is_noted_for_each_result():
    """The log makes one line a minute of them; the event says that nothing was stored."""
    harness = uncacheable(processes=2)
    notes = Notes(*harness.processes)
    harness.call_all()
    assert notes.lines == [harness.request().function] * 2
    assert [event.stored for event in harness.events.of(ComputeFinished)] == [False] * 2


def test_the_next_result_may_be_stored():
    """A function may return what can be stored the next time."""
    harness = uncacheable(processes=1, lock="shard")
    harness.call()
    harness.source.version = 1
    assert [harness.call(), harness.call(), harness.stored()] == [1, 1, 1]
    assert harness.source.calls == 2


@pytest.mark.parametrize("lock", LOCKS)
def test_a_policy_may_ask_for_the_error(lock):
    """Every caller gets it, and no caller queues."""
    harness = uncacheable(lock=lock, on_uncacheable="raise")
    notes = Notes(*harness.processes)
    began = harness.now
    tasks = [harness.start_call(process % 8) for process in range(16)]
    harness.finish(*tasks, within=10.0)
    assert {type(task.error) for task in tasks} == {UncacheableResultError}
    assert harness.now - began <= 2 * DELTA + 0.2
    assert notes.lines == []
    assert [node.held(harness.lock_key) for node in harness.nodes] == [None] * 5


def test_a_result_that_the_policy_does_not_keep_is_not_noted():
    """It was not to be stored."""
    harness = uncacheable(processes=1, condition=lambda _: False)
    notes = Notes(*harness.processes)
    assert harness.call() is harness.source.version
    assert notes.lines == []


@pytest.mark.parametrize("refresh", ["inline", "background"])
def test_a_refresh_leaves_the_stale_value(refresh):
    """Others are served it while it may be; the refresh key is free again."""
    harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0, refresh=refresh)
    harness.call_all()
    harness.advance(15.0)
    old, harness.source.version = harness.source.version, object()
    notes = Notes(*harness.processes)
    first = harness.call(0)
    assert first is (old if refresh == "background" else harness.source.version)
    harness.advance(2 * DELTA)
    assert len(notes.lines) == 1
    assert harness.stored() == old
    assert harness.shard.held(harness.request().refresh_key) is None
    harness.source.version = 2
    harness.call(1)
    harness.advance(2 * DELTA)
    assert harness.stored() == 2


def test_a_forced_refresh_returns_it():
    """The old value is gone: it is older than the call."""
    harness = RecomputeHarness(processes=1)
    harness.call()
    harness.source.version = object()
    assert harness.run(cached_value.refresh(harness.request())) is harness.source.version
    assert harness.count("uncached") == 1


def test_a_value_that_is_put_raises():
    """Who stores a value by hand gets the error."""
    harness = RecomputeHarness(processes=1)
    with pytest.raises(EncodeError):
        harness.run(cached_value.put(harness.request(), object()))
