"""The result of a recompute is stored, refused, stored as an error, or only returned."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import GetOrStub, Set
from shardcache.core.events import ComputeFinished
from shardcache.core.values.flags import SHIFT, is_abandoned
from shardcache.errors import DecodeError, NodeRefusedError, NodeUnavailableError
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NO_VALUE


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_refused_stub_is_counted(on_error):
    """The value is recomputed all the same, unless the policy asks for the error."""
    harness = RecomputeHarness(processes=1, lock="shard", on_error=on_error)
    execute = harness.shard.store.execute
    refusal = NodeRefusedError("out of memory")
    harness.shard.store.execute = lambda command: (
        refusal if isinstance(command, GetOrStub) else execute(command)
    )
    if on_error == "raise":
        with pytest.raises(NodeRefusedError, match="out of memory"):
            harness.call(0)
    else:
        assert harness.call(0) == 0
    assert harness.count("cache_errors") == 1
    assert harness.source.calls == (on_error == "compute")


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_node_that_cannot_be_read_is_counted(on_error):
    """The value is recomputed and not stored, unless the policy asks for the error."""
    harness = RecomputeHarness(processes=1, lock="shard", on_error=on_error)
    harness.shard.up = False
    if on_error == "raise":
        with pytest.raises(NodeUnavailableError):
            harness.call(0)
    else:
        assert harness.call(0) == 0
    assert harness.count("cache_errors") == 1
    assert harness.source.calls == (on_error == "compute")


def test_a_result_that_is_not_stored_needs_no_codec():
    """A result that `condition` refuses is returned, whatever its type."""
    harness = RecomputeHarness(processes=1, lock="shard", condition=lambda _: False)
    result = harness.source.version = object()
    assert harness.call(0) == result
    assert harness.count("uncached") == 1


def test_only_listed_errors_are_stored():
    """Any other leaves a mark that the recompute was abandoned."""
    harness = RecomputeHarness(processes=1, lock="shard", cache_errors=KeyError)
    for error, kept in ((ValueError("no such user"), False), (KeyError("no such user"), True)):
        harness.source.error = error
        with pytest.raises(type(error)):
            harness.call(0)
        payload, _ = harness.shard.held(harness.request().name)
        assert is_abandoned(payload) is not kept
        assert harness.events.of(ComputeFinished)[-1].stored is kept


def test_the_event_says_whether_a_value_was_stored():
    """A value that an invalidation has voided was not."""
    harness = RecomputeHarness(processes=2, lock="shard")
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    harness.advance(1.0, lambda: first.done)
    harness.call(1)
    assert [event.stored for event in harness.events.of(ComputeFinished)] == [False, True]


def test_the_leader_gets_the_error_itself():
    """It has the trace of where it was raised."""
    harness = RecomputeHarness(processes=1)
    error = harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report") as raised:
        harness.call(0)
    assert raised.value is error


def test_a_stored_error_is_a_hit():
    """The second call finds it, and raises it again."""
    harness = RecomputeHarness(processes=1, cache_errors=ValueError, error_ttl=10.0)
    harness.source.error = ValueError("no such report")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such report"):
            harness.call(0)
    assert harness.source.calls == 1
    assert (harness.count("misses"), harness.count("hits")) == (1, 1)


def test_two_stored_errors_are_never_the_same_bytes():
    """Some nodes compare versions by bytes."""
    request = RecomputeHarness(processes=1).request(Process(World(), [SimulatedNode(World())]))
    payload = request.cluster.payloads.encode(request.name, ["builtins:ValueError", []])
    assert request.seal_error(payload) != request.seal_error(payload)


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_an_unreadable_value_raises_if_client_and_policy_say_so(on_error):
    """The client by its `on_error`, and the policy by its own."""
    harness = RecomputeHarness(processes=1, on_error=on_error)
    harness.processes[0].cluster.raises = True
    request = harness.request()
    harness.run(request.ask(Set(request.name, (127 << SHIFT, b"of no codec"), 60.0)))
    if on_error == "raise":
        with pytest.raises(DecodeError):
            harness.call(0)
    else:
        assert harness.call(0) == 0


def test_a_value_without_its_tags_is_a_miss():
    """It was stored by a function that has none."""
    harness = RecomputeHarness(processes=1)
    process = harness.processes[0]
    assert harness.run(cached_value.put(harness.request(process), 7)) is True
    assert harness.run(cached_value.peek(harness.request(process))) == 7
    tagged = harness.request(process, tags=("t",))
    assert harness.run(cached_value.peek(tagged)) is NO_VALUE
    assert harness.run(cached_value.get(tagged)) == 0


def test_put_obeys_the_policy():
    """A refused result is not stored, nor is one with a tag whose version is unknown."""
    harness = RecomputeHarness(processes=1, condition=lambda result: result > 0)
    process = harness.processes[0]
    assert harness.run(cached_value.put(harness.request(process), 0)) is False
    assert harness.stored() is None
    tagged = harness.request(process, tags=("t0", "t1", "t2", "t3"))
    assert harness.run(cached_value.put(tagged, 1)) is True
    held = harness.shard.held(tagged.name)
    owners = [process.cluster.route(tag)[1] for tag in tagged.tags]
    other = next(member for member in owners if member is not tagged.member)
    other.backend.up = False
    assert harness.run(cached_value.put(tagged, 2)) is False
    assert harness.shard.held(tagged.name) == held
