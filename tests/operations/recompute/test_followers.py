"""What a caller gets from a flight of its process, and when it does the work itself."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA
from operations.harness import A_FEW_ROUND_TRIPS, MEMCACHED, EventLog, closing
from operations.virtual import LoopHarness
from shardcache.core.commands import Delete, Gets
from shardcache.core.events import Observers, StampedePrevented
from shardcache.errors import DecodeError, RecomputeTimeoutError
from shardcache.operations.recompute import cached_value

WAIT = 1.0
HUNG = 50.0


@pytest.fixture
def make_harness():
    """Return a maker of harnesses without tags, which are checked and closed at the end."""
    maker = closing(lambda **terms: LoopHarness(**{"tags": (), **terms}))
    yield next(maker)
    next(maker, None)


def started(harness, *calls):
    """Return the results of calls, and the seconds that each took from its own start."""
    seconds = {}
    began = dict.fromkeys(calls, harness.now)
    for call in calls:
        call.add_done_callback(lambda done: seconds.setdefault(done, harness.now - began[done]))
    results = harness.results(calls)
    return results, [seconds[call] for call in calls]


class TestShared:
    """One caller recomputes, and the others get copies of what it has."""

    def test_each_follower_has_its_own_copy(self, make_harness):
        """A caller that changes its value changes no other's."""
        harness = make_harness()
        harness.version = ["a", "list"]
        results = harness.results([harness.start_call() for _ in range(3)])
        assert results == [["a", "list"]] * 3
        assert len(set(map(id, results))) == 3
        assert (harness.calls, harness.count("coalesced")) == (1, 2)

    def test_a_follower_is_reported_as_one_that_was_spared_a_recompute(self, make_harness):
        """With the seconds that it waited; the leader is not."""
        harness = make_harness()
        log = EventLog(StampedePrevented)
        harness.clusters[0].observers = Observers([log])
        leader = harness.start_call()
        harness.advance(DELTA / 4)
        harness.results([leader, harness.start_call()])
        (event,) = log.events
        assert event[:2] == (harness.KEY.encode(), "joined")
        assert event.seconds == pytest.approx(0.75 * DELTA, abs=A_FEW_ROUND_TRIPS)

    def test_an_error_is_shared_as_a_copy(self, make_harness):
        """One call of the function fails for all callers, and each gets its own exception."""
        harness = make_harness()
        harness.error = ValueError("no such report")
        results = harness.results([harness.start_call() for _ in range(3)])
        assert [(type(each), str(each)) for each in results] == [(ValueError, "no such report")] * 3
        assert results[0] is harness.error
        assert len(set(map(id, results))) == 3
        assert (harness.calls, harness.count("errors"), harness.count("coalesced")) == (1, 1, 2)

    def test_a_value_that_cannot_be_copied_is_the_leaders_alone(self, make_harness):
        """It is not stored, so nothing needs to encode it: each follower calls the function."""
        harness = make_harness(condition=lambda _: False)
        made = []

        async def factory():
            value = object()
            made.append(value)
            await harness.clusters[0].io.sleep(DELTA)
            return value

        harness.factory = factory
        results = harness.results([harness.start_call() for _ in range(3)])
        assert set(results) == set(made)
        assert len(made) == 3
        assert harness.count("coalesced") == 0
        assert harness.count("recomputes") == 3

    @pytest.mark.parametrize("on_error", ["compute", "raise"])
    def test_a_copy_that_cannot_be_decoded(self, make_harness, on_error):
        """The follower recomputes, or gets the codec's error; it is counted at the value's node."""
        harness = make_harness(on_error=on_error)
        cluster = harness.clusters[0]

        def fail(*_):
            raise DecodeError("the codec is faulty")

        cluster.payloads.load = fail
        leader, follower = harness.results([harness.start_call() for _ in range(2)])
        assert leader == 0
        if on_error == "raise":
            assert isinstance(follower, DecodeError)
        else:
            assert follower == 0
        assert harness.calls == (2 if on_error == "compute" else 1)
        _, member, _ = cluster.route(harness.KEY)
        assert (member.decode_failures, member.hits, member.misses) == (1, 0, 0)

    def test_without_coalescing_every_caller_recomputes(self, make_harness):
        """The value that is stored first stays."""
        harness = make_harness(coalesce=False)
        assert harness.results([harness.start_call() for _ in range(3)]) == [0] * 3
        assert (harness.calls, harness.count("coalesced")) == (3, 0)
        assert harness.count("rejected") == 2

    def test_a_function_that_asks_for_its_own_value_does_not_wait_for_itself(self, make_harness):
        """The inner call recomputes alone, and only the outer one stores."""
        harness = make_harness()
        calls = []

        async def recursive():
            calls.append(len(calls))
            if calls[-1] == 0:
                return [await cached_value.get(harness.request(0))]
            return "inner"

        harness.factory = recursive
        results, (seconds,) = started(harness, harness.start_call())
        assert results == [["inner"]]
        assert seconds <= A_FEW_ROUND_TRIPS
        assert calls == [0, 1]
        assert harness.results([harness.start_call()]) == [["inner"]]


class TestTimeouts:
    """A follower waits for `wait` seconds from its own start."""

    @pytest.mark.parametrize(("on_timeout", "calls"), [("raise", 1), ("stale", 2), ("compute", 2)])
    def test_a_hung_leader_of_this_process(self, make_harness, on_timeout, calls):
        """Without an old value `stale` computes, as `compute` does."""
        harness = make_harness(wait=WAIT, on_timeout=on_timeout)
        harness.delta = HUNG
        leader = harness.start_call()
        harness.advance(0.1)
        harness.delta, harness.version = DELTA, 1
        (result,), (seconds,) = started(harness, harness.start_call())
        if on_timeout == "raise":
            assert isinstance(result, RecomputeTimeoutError)
            assert str(result) == "the value of 'report' was not recomputed within 1 s"
            assert WAIT <= seconds <= WAIT + A_FEW_ROUND_TRIPS
            assert harness.count("timeouts") == 1
        else:
            assert result == 1
            assert WAIT + DELTA <= seconds <= WAIT + DELTA + A_FEW_ROUND_TRIPS
        assert harness.calls == calls
        assert harness.results([leader]) == [0]

    def test_an_old_value_is_served_to_one_that_timed_out(self, make_harness):
        """Under `stale`: it is not recomputed a second time."""
        harness = make_harness(ttl=10.0, stale_if_error=60.0, wait=WAIT, on_timeout="stale")
        assert harness.results([harness.start_call()]) == [0]
        harness.advance(20.0)
        harness.delta, harness.version = HUNG / 2, 1
        leader = harness.start_call()
        harness.advance(0.1)
        results, (first, second) = started(harness, harness.start_call(), harness.start_call())
        assert results == [0, 0]
        assert WAIT <= first <= second <= WAIT + A_FEW_ROUND_TRIPS
        assert harness.count("timeouts") == 2
        assert harness.results([leader]) == [1]
        assert harness.calls == 2

    def test_the_timeout_of_another_caller_is_not_shared(self, make_harness):
        """A follower that came later waits on; one that came at the same time has no time left."""
        harness = make_harness(lock="shard", wait=WAIT, on_timeout="raise")
        harness.delta = HUNG
        hung = harness.start_call(1)
        harness.advance(0.1)
        early = [harness.start_call() for _ in range(2)]
        harness.advance(WAIT / 2)
        late = harness.start_call()
        results, seconds = started(harness, *early, late)
        assert [type(each) for each in results] == [RecomputeTimeoutError] * 3
        assert seconds == pytest.approx([WAIT / 2, WAIT / 2, WAIT], abs=A_FEW_ROUND_TRIPS)
        assert harness.calls == 1
        assert harness.results([hung]) == [0]


class TestOlderFlights:
    """A call joins no flight that an invalidation may have voided."""

    def test_a_stub_that_vanishes_during_the_look_for_its_token(self, make_harness):
        """The stubs of memcached are told apart by their tokens, which a second command reads."""
        harness = make_harness(kinds=MEMCACHED, lock="shard")
        harness.delta = 5.0
        leader = harness.start_call()
        harness.advance(1.0)
        execute, looked = harness.shard.store.execute, []

        def invalidated_just_before(command):
            if isinstance(command, Gets) and not looked:
                looked.append(command)
                execute(Delete(command.key))
            return execute(command)

        harness.shard.store.execute = invalidated_just_before
        harness.delta, harness.version = DELTA, 1
        (result,), (seconds,) = started(harness, harness.start_call())
        assert looked
        assert result == 1
        assert seconds <= DELTA + A_FEW_ROUND_TRIPS
        assert harness.results([leader]) == [0]
        assert harness.results([harness.start_call()]) == [1]

    def test_a_leader_that_could_not_reach_the_node(self, make_harness):
        """What it may have missed is not known once the node answers again; it stores nothing."""
        harness = make_harness()
        harness.shard.up = False
        harness.delta = 9.0
        leader = harness.start_call()
        harness.advance(1.0)
        harness.shard.up = True
        harness.advance(5.0)  # it has been probed
        harness.delta, harness.version = DELTA, 1
        (result,), (seconds,) = started(harness, harness.start_call())
        assert result == 1
        assert seconds <= DELTA + A_FEW_ROUND_TRIPS
        assert harness.results([leader]) == [0]
        assert harness.results([harness.start_call()]) == [1]
        assert harness.calls == 2

    @pytest.mark.parametrize("invalidated", [False, True])
    def test_a_refresh_of_an_old_value_is_joined_while_that_is_there(
        self, make_harness, invalidated
    ):
        """An invalidation removes it: then the caller recomputes the value itself."""
        harness = make_harness(ttl=10.0, stale_if_error=60.0)
        harness.results([harness.start_call()])
        harness.advance(20.0)
        harness.delta, harness.version = 5.0, 1
        leader = harness.start_call()
        harness.advance(1.0)
        if invalidated:
            harness.void(1, "invalidate")
        harness.delta = DELTA
        follower = harness.start_call()
        assert harness.results([leader, follower]) == [1, 2 if invalidated else 1]
        assert harness.calls == (3 if invalidated else 2)
