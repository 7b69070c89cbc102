"""`bypass` and `refresh` blocks, in virtual time."""

from __future__ import annotations

import contextvars

import pytest

from operations.cached_harness import DELTA
from operations.harness import MEMCACHED, REDIS, EventLog
from operations.virtual import LoopHarness
from shardcache.core.events import Observers, OperationFinished
from shardcache.errors import RecomputeTimeoutError
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.blocks import bypass, bypassed, entered, refresh, refreshing


@pytest.fixture(params=[REDIS, MEMCACHED], ids=["redis", "memcached"])
def make_harness(request):
    """Return a maker of harnesses over nodes of each kind, which are checked and closed at the end."""
    made = []

    def make(**terms):
        made.append(LoopHarness(kinds=request.param, **terms))
        return made[-1]

    yield make
    for each in made:
        each.close()


class TestBlocks:
    """Where a block holds."""

    def test_the_innermost_block_counts(self):
        """When it ends, the outer one holds again."""
        with bypass():
            assert bypassed()
            with refresh():
                assert not bypassed()
                assert refreshing() is not None
                with bypass():
                    assert bypassed()
                    assert refreshing() is None
                assert refreshing() is not None
            assert bypassed()
        assert entered.get() == ()

    def test_one_object_may_be_entered_again(self):
        """Also within itself."""
        block = bypass()
        with block:
            with block:
                assert bypassed()
            assert bypassed()
        assert not bypassed()

    def test_an_error_ends_a_block(self):
        """It reaches the caller."""
        with pytest.raises(KeyError), refresh():
            raise KeyError
        assert refreshing() is None

    def test_a_block_may_end_in_another_context(self):
        """As that of a generator which a framework drives: nothing raises, and no other block ends."""
        block = bypass()
        contextvars.copy_context().run(block.__enter__)
        assert not bypassed()
        with refresh():
            block.__exit__()
            assert refreshing() is not None
        assert entered.get() == ()

    @pytest.mark.parametrize("again", [False, True], ids=["two", "one entered twice"])
    def test_blocks_end_in_any_order(self, again):
        """As those of two fixtures, or generators: each ends itself, not the one entered last."""
        outer, inner = bypass(), refresh()
        outer.__enter__()
        inner.__enter__()
        if again:
            outer.__enter__()
            outer.__exit__()
        outer.__exit__()
        assert refreshing() is not None
        inner.__exit__()
        assert entered.get() == ()


class TestBypass:
    """Calls in a `bypass` block."""

    def test_the_node_is_not_asked(self, make_harness):
        """Each call calls the function."""
        harness = make_harness()
        harness.results([harness.start_call()])
        stored = harness.shard.held(harness.request(0).name)
        asked = harness.shard.store._writes
        with bypass():
            tasks = [harness.start_call() for _ in range(3)]
        harness.version = 1
        assert harness.results(tasks) == [1, 1, 1]
        assert harness.calls == 4
        assert harness.shard.store._writes == asked
        assert harness.shard.held(harness.request(0).name) == stored
        assert harness.results([harness.start_call()]) == [0]


class TestRefresh:
    """Calls in a `refresh` block."""

    @pytest.mark.parametrize("terms", [{}, {"lock": True}, {"stale": 30.0}])
    def test_the_value_is_recomputed_and_stored(self, make_harness, terms):
        """Later callers find it."""
        harness = make_harness(**terms)
        harness.results([harness.start_call()])
        harness.version = 1
        with refresh():
            task = harness.start_call()
        assert harness.results([task]) == [1]
        assert harness.results([harness.start_call()]) == [1]
        assert harness.calls == 2

    @pytest.mark.parametrize("terms", [{}, {"lock": True}, {"stale": 30.0}])
    def test_callers_at_the_same_time_share_one_recompute(self, make_harness, terms):
        """Two hundred requests with `Cache-Control: no-cache` are no stampede."""
        harness = make_harness(**terms)
        harness.results([harness.start_call()])
        harness.version = 1
        tasks = []
        for _ in range(10):
            for _ in range(20):
                with refresh():
                    tasks.append(harness.start_call())
            harness.advance(DELTA / 20)
        assert harness.results(tasks) == [1] * 200
        assert harness.calls == 2

    def test_a_missing_value_is_recomputed_once(self, make_harness):
        """Those in no block join as well."""
        harness = make_harness()
        with refresh():
            first = harness.start_call()
        harness.advance(DELTA / 2)
        assert harness.results([first, harness.start_call()]) == [0, 0]
        assert harness.calls == 1

    def test_an_ordinary_recompute_is_not_joined(self, make_harness):
        """It may end with an old value; what it stores later does not replace the new one."""
        harness = make_harness()
        harness.delta = 3 * DELTA
        before = harness.start_call()
        harness.advance(DELTA)
        harness.delta, harness.version = DELTA, 1
        with refresh():
            task = harness.start_call()
        assert harness.results([task, before]) == [1, 0]
        assert harness.results([harness.start_call()]) == [1]

    @pytest.mark.parametrize("way", ["invalidate", "invalidate_tag"])
    def test_a_void_recompute_is_not_joined(self, make_harness, way):
        """Another process has invalidated the value since the recompute began."""
        harness = make_harness()
        with refresh():
            before = harness.start_call()
        harness.advance(DELTA / 2)
        harness.void(1, way)
        with refresh():
            after = harness.start_call()
        assert harness.results([after, before]) == [1, 0]
        assert harness.results([harness.start_call()]) == [1]

    def test_a_block_recomputes_each_value_once(self, make_harness):
        """Its next call for the value is an ordinary one."""
        harness = make_harness()

        async def call_three_times():
            with refresh():
                return [await cached_value.get(harness.request(0)) for _ in range(3)]

        harness.results([harness.start_call()])
        assert harness.results([harness.loop.create_task(call_three_times())]) == [[0, 0, 0]]
        assert harness.calls == 2

    def test_a_dead_node_is_no_obstacle(self, make_harness):
        """The callers still share one recompute."""
        harness = make_harness()
        harness.shard.up = False
        with refresh():
            tasks = [harness.start_call() for _ in range(20)]
        assert harness.results(tasks) == [0] * 20
        assert harness.calls == 1

    def test_a_hung_refresh_costs_one_wait(self, make_harness):
        """Then another caller recomputes the value; or all get an error, if the policy says so."""
        harness = make_harness(wait=1.0)
        harness.delta = 50.0
        with refresh():
            harness.start_call()
            harness.advance(0.1)
            harness.delta = DELTA
            assert harness.results([harness.start_call()]) == [0]
        assert harness.calls == 2
        harness = make_harness(wait=1.0, on_timeout="raise")
        harness.delta = 5.0
        with refresh():
            harness.start_call()
            harness.advance(0.1)
            (error,) = harness.results([harness.start_call()])
        assert isinstance(error, RecomputeTimeoutError)

    def test_observers_see_a_miss(self, make_harness):
        """Nothing was served from the cache."""
        harness = make_harness()
        log = EventLog(OperationFinished)
        for cluster in harness.clusters:
            cluster.observers = Observers([log])
            cluster.observes_operations = True
        harness.results([harness.start_call()])
        with refresh():
            task = harness.start_call()
        harness.results([task, harness.start_call()])
        assert [event.hits for event in log.of(OperationFinished)] == [0, 1, 0]
