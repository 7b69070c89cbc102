"""How values grow old: early refreshes, stale values, and the last resort after an error."""

from __future__ import annotations

import math

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import MEMCACHED, ON_THE_WAY_BACK, REDIS
from shardcache.core.commands import Set
from shardcache.core.events import Observers, StaleServed
from shardcache.core.values.envelopes import pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, SHIFT
from shardcache.core.values.freshness import seal
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.claims import BACKING_OFF
from shardcache.operations.recompute.protection import LOST_PAUSE

MODES = [False, "shard", True]


@pytest.mark.parametrize("lock", MODES)
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("before", ["nothing", "a stale value"])
def test_refresh_stores_over_an_older_recompute(lock, kinds, before):
    """A leader that began earlier has read an older state of the source."""
    harness = RecomputeHarness(processes=2, kinds=kinds, lock=lock, ttl=10.0, stale=30.0)
    if before != "nothing":
        harness.call(0)
        harness.advance(15.0)
    harness.source.delta = 2.0
    slow = harness.start_call(0)
    harness.advance(1.0)
    assert harness.source.busy == 1
    harness.source.version, harness.source.delta = 1, 3.0
    assert harness.run(cached_value.refresh(harness.request(1)), 1) == 1
    harness.advance(5.0)
    assert slow.done
    assert harness.stored() == 1
    assert harness.count("rejected") == 1


def test_a_refresh_that_cannot_be_stored_leaves_no_old_value():
    """Its node is out, and is asked again when the old value is deleted there."""
    harness = RecomputeHarness(processes=1, kinds=REDIS[:1])
    harness.call(0)
    harness.kill(0)
    harness.source.version = 1
    assert harness.run(cached_value.refresh(harness.request())) == 1
    harness.nodes[0].up = True
    harness.advance(30.0, lambda: not harness.ejected())
    assert harness.nodes[0].held(b"report") is None
    assert harness.call(0) == 1


@pytest.mark.parametrize("terms", [{}, {"stale": 30.0}], ids=["fresh only", "stale"])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED], ids=["redis", "memcached"])
def test_a_refresh_stores_over_an_older_one(kinds, terms):
    """Of two processes that refresh a value, the one that began later has read the newer state."""
    harness = RecomputeHarness(processes=2, kinds=kinds, **terms)
    harness.call(0)
    harness.source.version, harness.source.delta = 1, 2.0
    older = harness.start(cached_value.refresh(harness.request(0)), 0)
    harness.advance(1.0)
    harness.source.version = 2
    newer = harness.start(cached_value.refresh(harness.request(1)), 1)
    harness.finish(older, newer, within=10.0)
    assert (older.result, newer.result) == (1, 2)
    assert harness.stored() == 2
    assert harness.count("rejected") == 1


def test_a_stale_value_is_not_refreshed_beside_a_forced_refresh():
    """It is served, and the function runs once."""
    harness = RecomputeHarness(processes=2, ttl=10.0, stale=60.0, refresh="inline")
    harness.call(0)
    harness.advance(15.0)
    harness.source.version = 1
    task = harness.start(cached_value.refresh(harness.request(0)), 0)
    harness.advance(DELTA / 2)
    assert harness.call(1) == 0
    harness.finish(task, within=1.0)
    assert (task.result, harness.stored(), harness.source.calls) == (1, 1, 2)


def test_a_refresh_is_tried_while_others_back_off():
    """The old value stays meanwhile, and if it fails again as well."""
    harness = RecomputeHarness(processes=2, ttl=10.0, stale=60.0, refresh="inline")
    harness.call(0)
    harness.advance(15.0)
    harness.source.error = ValueError("down")
    assert harness.call(0) == 0
    assert harness.shard.held(harness.request().refresh_key)[0] == BACKING_OFF
    task = harness.start(cached_value.refresh(harness.request(1)), 1)
    harness.finish(task, within=1.0)
    assert isinstance(task.error, ValueError)
    assert harness.stored() == 0
    assert harness.source.calls == 3


def test_refresh_leaves_the_old_value_to_others():
    """They are served it while one process recomputes."""
    harness = RecomputeHarness(processes=2)
    harness.call(0)
    harness.source.version, harness.source.delta = 1, 5.0
    task = harness.processes[0].run(cached_value.refresh(harness.request()))
    harness.advance(1.0)
    assert harness.call(1) == 0
    harness.advance(10.0, lambda: task.done)
    assert (task.result, harness.stored()) == (1, 1)


@pytest.mark.parametrize("refresh", ["background", "inline"])
def test_each_old_value_that_is_served_is_an_event(refresh):
    """Whether it was stale, or the last resort after an error; a fresh one is none."""
    harness = RecomputeHarness(
        processes=1, ttl=10.0, stale=5.0, stale_if_error=20.0, error_backoff=50.0, refresh=refresh
    )
    harness.call()
    harness.call()
    assert harness.events.of(StaleServed) == []
    harness.source.error = ValueError("down")
    harness.advance(12.0)
    harness.call()
    assert harness.events.of(StaleServed) == [StaleServed(harness.request().name)]
    harness.advance(5.0)
    harness.call()
    harness.call()
    assert len(harness.events.of(StaleServed)) == harness.count("stale")
    harness.process.cluster.observers = Observers()
    harness.call()
    assert len(harness.events.of(StaleServed)) == harness.count("stale") - 1


@pytest.mark.parametrize(
    ("refresh", "by_task", "inline"),
    [
        ("inline", True, True),
        ("inline", False, True),
        ("background", True, False),
        ("background", False, False),
        ("auto", True, False),
        ("auto", False, True),
    ],
)
def test_where_a_stale_value_is_refreshed(refresh, by_task, inline):
    """In the call that was chosen, which gets the new value; or in the background."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=30.0, refresh=refresh)
    harness.cluster.io.refreshes_in_background = by_task
    harness.call(0)
    harness.advance(15.0)
    harness.source.version = 1
    began = harness.now
    assert harness.call(0) == int(inline)
    assert (harness.now - began >= DELTA) is inline
    harness.advance(1.0)
    assert harness.stored() == 1


class TestAgeing:
    """What happens to a value as it grows old."""

    def refresh_key(self, harness):
        """Return what the node has under the refresh key of the value."""
        return harness.shard.held(harness.request().refresh_key)

    @pytest.mark.parametrize("invalidated", [False, True])
    def test_a_refresh_leaves_no_refresh_key(self, invalidated):
        """Whether its value was stored or not, the next refresh may begin when it ends."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(DELTA / 2)
        assert self.refresh_key(harness) is not None
        if invalidated:
            harness.run(cached_value.invalidate(harness.request(1)), 1)
        harness.advance(DELTA)
        assert self.refresh_key(harness) is None
        assert harness.count("rejected") == invalidated

    def test_a_late_refresher_recomputes_nothing(self):
        """It leaves a value that another process stored meanwhile, and frees the refresh key."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        late = harness.start_call(1)
        harness.advance(ON_THE_WAY_BACK)  # the node has sent the old value
        harness.processes[1].pause(1.0)
        harness.call(0)
        harness.advance(1.5)
        assert late.done
        assert harness.source.calls == 2
        assert self.refresh_key(harness) is None

    def test_a_last_resort_has_an_end(self):
        """A value that grows too old during its refresh does not replace an error."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0, stale_if_error=20.0)
        harness.call(0)
        harness.advance(28.0)
        harness.source.error = ValueError("the source is down")
        harness.source.delta = 5.0
        with pytest.raises(ValueError, match="is down"):
            harness.call(0)
        assert harness.count("swallowed") == 0

    @pytest.mark.parametrize("lock", MODES)
    def test_a_stale_value_is_served_while_one_process_refreshes_it(self, lock):
        """Every caller has the old value at once."""
        harness = RecomputeHarness(lock=lock, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.source.version = 1
        began = harness.now
        assert harness.call_all() == [0] * 8
        assert harness.now - began <= 0.01
        harness.advance(1.0)
        assert harness.source.calls == 2
        assert harness.call_all() == [1] * 8

    def test_beyond_stale_a_value_is_gone(self):
        """Callers then wait, as for any missing value."""
        harness = RecomputeHarness(lock=True, ttl=10.0, stale=5.0)
        harness.call(0)
        harness.advance(16.0)
        harness.source.version = 1
        assert harness.call_all() == [1] * 8
        assert harness.source.calls == 2

    def test_an_invalidation_voids_a_refresh(self):
        """A refresh that began before it stores nothing."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(DELTA / 2)
        assert harness.source.calls == 2
        harness.source.version = 1
        harness.run(cached_value.invalidate(harness.request(1)), 1)
        harness.advance(1.0)
        assert harness.stored() is None
        assert harness.call(1) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize("lock", MODES)
    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    @pytest.mark.parametrize("terms", [{"stale": 1.0}, {"early": 1.0}])
    def test_a_slow_refresh_outlasts_the_old_value(self, lock, kinds, terms):
        """No other process starts when the old value becomes too old to serve, and the new one is stored."""
        harness = RecomputeHarness(
            processes=4, kinds=kinds, lock=lock, ttl=10.0, wait=60.0, seed=3, **terms
        )
        harness.source.delta = 8.0
        harness.call(0)
        tasks = []
        while harness.source.calls < 2:
            harness.advance(0.1)
            tasks.append(harness.start_call(0))
        harness.source.version = 1
        for _ in range(80):
            harness.advance(0.1)
            tasks += [harness.start_call(1), harness.start_call(2)]
        harness.advance(30.0, lambda: all(task.done for task in tasks))
        harness.advance(9.0, lambda: harness.source.busy == 0)
        assert harness.source.most_busy == 1
        assert harness.count("rejected") == 0

    @pytest.mark.parametrize("on_timeout", ["compute", "stale", "raise"])
    def test_an_invalidated_last_resort_is_not_served(self, on_timeout):
        """A waiter goes on as if the old value had never been there."""
        harness = RecomputeHarness(
            processes=2, lock=True, ttl=10.0, stale_if_error=60.0, wait=30.0, on_timeout=on_timeout
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.delta = 20.0
        harness.start_call(0)
        harness.advance(1.0)
        waits = harness.start_call(1)
        harness.advance(1.0)
        harness.source.version, harness.source.delta = 1, DELTA
        harness.run(cached_value.invalidate(harness.request(1)), 1)
        began = harness.now
        harness.advance(60.0, lambda: waits.done)
        assert (waits.result, harness.stored()) == (1, 1)
        assert harness.now - began <= DELTA + 0.5

    def test_an_invalidation_ends_the_backoff_after_a_failure(self):
        """A value recomputed after it may be refreshed as soon as it is stale."""
        harness = RecomputeHarness(processes=1, ttl=1.0, stale=60.0, error_backoff=50.0)
        harness.call_all()
        harness.advance(2.0)
        harness.source.error = ValueError("the source is down")
        harness.call_all()
        harness.advance(1.0)
        harness.source.error = None
        harness.run(cached_value.invalidate(harness.request()))
        harness.call_all()
        harness.advance(2.0)
        harness.source.version = 1
        harness.call_all()
        harness.advance(1.0)
        assert harness.stored() == 1

    def test_a_failing_refresh_is_not_tried_again_at_once(self):
        """The old value is served, and the source left alone for `error_backoff` seconds."""
        harness = RecomputeHarness(ttl=10.0, stale=60.0, error_backoff=5.0)
        harness.call(0)
        harness.advance(15.0)
        harness.source.error = ValueError("the source is down")
        for _ in range(40):
            harness.call_all()
            harness.advance(0.1)
        assert harness.source.calls == 2
        harness.advance(2.0)
        harness.source.error = None
        harness.source.version = 1
        harness.call_all()
        harness.advance(1.0)
        assert harness.source.calls == 3
        assert harness.call_all() == [1] * 8

    @pytest.mark.parametrize("lock", MODES)
    def test_beyond_stale_an_old_value_replaces_an_error(self, lock):
        """A caller recomputes first, and is served the old value only when that fails."""
        harness = RecomputeHarness(
            lock=lock, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.version = 1
        harness.source.error = ValueError("the source is down")
        assert harness.call_all() == [0] * 8
        assert harness.source.calls == 2
        assert harness.call_all() == [0] * 8
        assert harness.source.calls == 2
        harness.advance(6.0)
        harness.source.error = None
        assert harness.call_all() == [1] * 8
        assert harness.source.calls == 3

    def test_an_unreadable_value_is_recomputed(self):
        """Though its age would allow to serve it."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0)
        request = harness.request()
        garbage = seal((127 << SHIFT, b"of no codec"), harness.now, 0.0, 10.0, ())
        harness.run(request.ask(Set(request.name, (ENVELOPE_FLAGS, pack(garbage)), 100.0)))
        assert harness.call(0) == 0
        assert (harness.source.calls, harness.count("misses"), harness.count("hits")) == (1, 1, 0)

    def test_an_unreadable_last_resort_is_not_served(self):
        """The function's error is raised, not that of the codec."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0, stale_if_error=60.0)
        request = harness.request()
        garbage = seal((127 << SHIFT, b"of no codec"), harness.now, 0.0, 10.0, ())
        harness.run(request.ask(Set(request.name, (ENVELOPE_FLAGS, pack(garbage)), 100.0)))
        harness.advance(20.0)
        harness.source.error = ValueError("the source is down")
        with pytest.raises(ValueError, match="is down"):
            harness.call(0)

    def test_an_early_refresh_happens_once_before_the_end(self):
        """One process refreshes ahead of the end of each life."""
        harness = RecomputeHarness(processes=4, ttl=10.0, early=1.0, seed=5)
        harness.source.delta = 1.0
        harness.call(0)
        for _ in range(400):
            harness.call_all(seconds=5.0)
            harness.advance(0.05)
        lives = harness.now - 1000.0
        assert harness.count("misses") <= 4  # of the first call alone, or nearly so
        assert math.floor(lives / 10.0) <= harness.source.calls <= lives / 5.0 + 1
        assert harness.count("early") == harness.source.calls - harness.count("misses") > 0

    def test_a_refused_refresher_pauses_before_it_tries_again(self):
        """Not every call that serves an old value asks the node for the refresh key."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(0.01)
        candidates = harness.record_commands(Set, nodes=[harness.shard])
        for _ in range(4):
            assert harness.call(1) == 0
        harness.advance(0.01)
        assert len(candidates) == 1
        harness.advance(LOST_PAUSE)
        harness.call(1)
        harness.advance(0.01)
        assert len(candidates) == 2

    def test_a_process_may_refresh_again_and_again(self):
        """A lone process refreshes each value, however soon it grows old."""
        harness = RecomputeHarness(processes=1, ttl=1.0, stale=30.0)
        harness.call(0)
        for calls in range(2, 6):
            harness.advance(1.3)
            harness.call(0)
            harness.advance(DELTA + 0.1)
            assert harness.source.calls == calls

    def test_with_all_refreshers_busy_the_next_call_refreshes(self):
        """The refresh key is released, and not kept for the time of a lock."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        io = harness.processes[0].cluster.io
        offer, io.try_spawn = io.try_spawn, lambda *_: False
        assert harness.call(0) == 0
        io.try_spawn = offer
        assert harness.call(0) == 0
        harness.advance(1.0)
        assert harness.source.calls == 2
