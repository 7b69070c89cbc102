"""Which results and exceptions are stored, and what callers get of those that cannot be."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Cas, Delete, Set
from shardcache.core.events import ComputeFinished
from shardcache.core.values.flags import ENVELOPE_FLAGS, ERROR_FLAGS, SHIFT, is_abandoned, stub
from shardcache.errors import (
    EncodeError,
    NodeRefusedError,
    NodeUnavailableError,
    UncacheableResultError,
)
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NO_VALUE

TTL = 10.0


class Notes:
    """Notes that are kept."""

    def __init__(self, harness):
        self.failed = []
        self.not_kept = []
        for process in harness.processes:
            process.protection.notes = self

    def refresh_failed(self, function, error):
        """Note the error of a refresh."""
        self.failed.append((function, error))

    def error_not_kept(self, function, kind):
        """Note the type of an exception."""
        self.not_kept.append((function, kind))


class TestUncacheable:
    """A result that the codec does not take."""

    @pytest.mark.parametrize("lock", ["shard", True])
    def test_is_an_error_that_names_the_key(self, lock):
        """Nothing is stored, and the followers are told to call the function themselves."""
        harness = RecomputeHarness(processes=2, lock=lock, on_uncacheable="raise")
        harness.source.version = object()
        tasks = [harness.start_call(place) for place in range(2)]
        began = harness.now
        harness.finish(*tasks)
        assert harness.now - began <= 2 * DELTA + 0.2
        for task in tasks:
            assert isinstance(task.error, UncacheableResultError)
            assert str(task.error).startswith("the value of 'report' cannot be stored: ")
            assert isinstance(task.error.__cause__, EncodeError)
        assert harness.count("uncached") == harness.source.calls == 2
        assert is_abandoned(harness.shard.held(harness.request().name)[0])
        assert [event.stored for event in harness.events.of(ComputeFinished)] == [False] * 2

    def test_the_way_out_for_none_is_named(self):
        """Some codecs do not take it."""
        harness = RecomputeHarness(processes=1, on_uncacheable="raise")
        harness.source.version = None

        def refuse(*_):
            raise EncodeError("no None")

        harness.cluster.payloads.dump = refuse
        with pytest.raises(UncacheableResultError, match="no None; cache_none=False returns it"):
            harness.call()


def test_a_value_whose_tags_are_unknown_is_not_stored():
    """The node of a tag fails: the caller has its value, and the failure is counted."""
    harness = RecomputeHarness(processes=1, lock="shard")
    request = harness.request(tags=("t0", "t1", "t2", "t3"))
    owners = [harness.cluster.route(tag)[1] for tag in request.tags]
    other = next(member for member in owners if member is not request.member)
    other.backend.up = False
    assert harness.run(cached_value.get(request)) == 0
    assert is_abandoned(harness.shard.held(request.name)[0])
    assert harness.count("cache_errors") == 1
    assert [event.stored for event in harness.events.of(ComputeFinished)] == [False]


@pytest.mark.parametrize(
    ("call", "forgets"),
    [
        (cached_value.get, False),
        (cached_value.peek, False),
        (lambda request: cached_value.put(request, 7), True),
        (cached_value.refresh, True),
        (cached_value.invalidate, True),
    ],
    ids=["get", "peek", "put", "refresh", "invalidate"],
)
def test_what_replaces_or_removes_a_value_ends_older_flights(call, forgets):
    """No later caller joins a recompute that began before, for its result may be older."""
    harness = RecomputeHarness(processes=1)
    forgotten = []
    harness.cluster.io.single_flight.forget = forgotten.append
    request = harness.request()
    harness.run(call(request))
    assert forgotten == [request.name] * forgets


@pytest.mark.parametrize("raises", [False, True])
def test_an_invalidation_tells_whether_anything_was_there(raises):
    """A value, or the stub of a recompute; the error of the node is swallowed or raised."""
    harness = RecomputeHarness(processes=1)
    harness.cluster.raises = raises

    def invalidate():
        return harness.run(cached_value.invalidate(harness.request()))

    assert invalidate() is False
    harness.call()
    assert invalidate() is True
    harness.start_call()
    harness.advance(DELTA / 2)
    assert invalidate() is True
    harness.shard.up = False
    if raises:
        with pytest.raises(NodeUnavailableError):
            invalidate()
    else:
        assert invalidate() is False


class TestPut:
    """A value is stored as if it had just been recomputed."""

    def test_a_refused_value_leaves_no_old_one(self):
        """As after every store that a node refuses."""
        harness = RecomputeHarness(processes=1)
        assert harness.run(cached_value.put(harness.request(), 7)) is True
        execute = harness.shard.store.execute
        harness.shard.store.execute = lambda command: (
            NodeRefusedError("out of memory") if isinstance(command, Set) else execute(command)
        )
        assert harness.run(cached_value.put(harness.request(), 8)) is False
        assert harness.stored() is None

    def test_a_peek_never_recomputes(self):
        """It returns what a call would be served at once."""
        harness = RecomputeHarness(processes=1, ttl=TTL, stale=TTL, stale_if_error=3 * TTL)

        def peek():
            return harness.run(cached_value.peek(harness.request()))

        assert peek() is NO_VALUE
        harness.run(cached_value.put(harness.request(), 7))
        assert peek() == 7
        harness.advance(1.5 * TTL)
        assert peek() == 7  # stale
        harness.advance(TTL)
        assert peek() is NO_VALUE  # a last resort
        name = harness.request().name
        for payload in (stub(b"m"), (ENVELOPE_FLAGS, b"no envelope"), (127 << SHIFT, b"?")):
            harness.shard.store.execute(Set(name, payload))
            assert peek() is NO_VALUE
        assert harness.source.calls == 0


def test_a_value_that_cannot_be_opened_is_replaced():
    """Its envelope is none, or holds no value of shardcache's."""
    harness = RecomputeHarness(processes=1)
    name = harness.request().name
    for payload in ((ENVELOPE_FLAGS, b"no envelope"), (ENVELOPE_FLAGS, bytes(64))):
        harness.shard.store.execute(Set(name, payload))
        assert harness.call() == harness.stored() == 0
    assert (harness.count("misses"), harness.source.calls) == (2, 2)


class TestFailingRefreshes:
    """An old value is served while it is refreshed in the background."""

    def test_a_failure_that_reaches_no_caller_is_reported(self):
        """When the old value is too old to stand for the error, as well as when it does."""
        for stale_if_error, swallowed in ((0.0, 0), (60.0, 1)):
            harness = RecomputeHarness(
                processes=1, ttl=TTL, stale=60.0, stale_if_error=stale_if_error
            )
            notes = Notes(harness)
            harness.call()
            harness.advance(1.5 * TTL)
            error = harness.source.error = ValueError("the source is down")
            assert harness.call() == 0
            harness.advance(1.0)
            ((function, noted),) = notes.failed
            assert noted is error
            assert function.startswith("get_or_set with ")
            assert (harness.count("errors"), harness.count("swallowed")) == (1, swallowed)


class TestKeptErrors:
    """Exceptions in place of a value."""

    def test_an_exception_that_would_not_come_back_whole_is_reported(self):
        """It is raised, and not stored: the next caller calls the function."""
        for argument in (object(), EncodeError):
            harness = RecomputeHarness(processes=1, lock="shard", cache_errors=ValueError)
            notes = Notes(harness)
            harness.source.error = ValueError("no such report", argument)
            for calls in (1, 2):
                with pytest.raises(ValueError, match="no such report"):
                    harness.call()
                assert harness.source.calls == calls
            assert [kind for _, kind in notes.not_kept] == [ValueError] * 2

    @pytest.mark.parametrize("lock", ["shard", True])
    def test_one_that_waits_gets_the_stored_exception(self, lock):
        """Of another process; the function is called once."""
        harness = RecomputeHarness(lock=lock, cache_errors=ValueError)
        harness.source.error = ValueError("no such report")
        tasks = [harness.start_call(place) for place in range(8)]
        harness.finish(*tasks)
        assert [str(task.error) for task in tasks] == ["no such report"] * 8
        assert harness.source.calls == 1

    def test_one_that_keeps_no_such_exception_calls_the_function(self):
        """Clients may have other policies: what one stores is no outcome for another."""
        harness = RecomputeHarness(processes=2, lock="shard", cache_errors=ValueError, error_ttl=60)
        harness.source.error = ValueError("no such report")
        first = harness.start_call(0)
        harness.advance(DELTA / 2)
        second = harness.start_call(1, CachePolicy(ttl=60.0, jitter=0.0, lock="shard"))
        harness.finish(first)
        assert isinstance(first.error, ValueError)
        harness.source.error = None
        harness.finish(second)
        assert (second.result, harness.stored()) == (0, 0)
        assert harness.source.calls == 2

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            (ENVELOPE_FLAGS).to_bytes(4, "big") + bytes(16) + b"an envelope",
            (127 << SHIFT).to_bytes(4, "big") + bytes(16) + b"of no codec",
            (2).to_bytes(4, "big") + bytes(16) + b"7",
        ],
        ids=["nothing", "no value", "of no codec", "no description"],
    )
    def test_what_is_no_exception_is_a_miss(self, data):
        """Others may have written it: it is replaced by the value."""
        harness = RecomputeHarness(processes=1, cache_errors=ValueError)
        name = harness.request().name
        harness.shard.store.execute(Set(name, (ERROR_FLAGS, data)))
        assert harness.call() == harness.stored() == 0
        assert (harness.count("misses"), harness.count("hits")) == (1, 0)

    def test_an_exception_that_cannot_be_stored_is_raised(self):
        """A node that refuses it is asked to drop what was there before."""
        harness = RecomputeHarness(processes=1, lock="shard", cache_errors=ValueError)
        error = harness.source.error = ValueError("no such report")
        execute = harness.shard.store.execute
        harness.shard.store.execute = lambda command: (
            NodeRefusedError("out of memory")
            if isinstance(command, Cas) and command.payload[0] == ERROR_FLAGS
            else execute(command)
        )
        with pytest.raises(ValueError, match="no such report") as raised:
            harness.call()
        assert raised.value is error
        assert harness.count("cache_errors") == 1
        assert [event.stored for event in harness.events.of(ComputeFinished)] == [False]
        execute(Delete(harness.request().name))
