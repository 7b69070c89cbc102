"""What becomes of a recompute: stored, refused, kept as an error, or returned and nothing more."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import GetOrStub, Set
from shardcache.core.events import ComputeFinished
from shardcache.core.payloads import SHIFT, is_abandoned
from shardcache.errors import DecodeError, NodeRefusedError
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NOT_MADE


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_node_that_takes_no_stub_is_counted(on_error):
    """The value is made all the same, unless the policy asks for the error."""
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


def test_what_is_neither_kept_nor_storable_is_given():
    """A result that `condition` refuses need not be one that any codec takes."""
    harness = RecomputeHarness(processes=1, lock="shard", condition=lambda _: False)
    result = harness.source.version = object()
    assert harness.call(0) == result
    assert harness.count("uncached") == 1


def test_only_errors_of_the_kinds_asked_for_are_kept():
    """Of another kind nothing is left but a mark that the making was given up."""
    harness = RecomputeHarness(processes=1, lock="shard", cache_errors=KeyError)
    for error, kept in ((ValueError("no such user"), False), (KeyError("no such user"), True)):
        harness.source.error = error
        with pytest.raises(type(error)):
            harness.call(0)
        payload, _ = harness.shard.held(harness.request().name)
        assert is_abandoned(payload) is not kept
        assert harness.events.of(ComputeFinished)[-1].stored is kept


def test_it_is_told_whether_a_value_was_stored():
    """A value that an invalidation has voided was not."""
    harness = RecomputeHarness(processes=2, lock="shard")
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    harness.advance(1.0, lambda: first.done)
    harness.call(1)
    assert [event.stored for event in harness.events.of(ComputeFinished)] == [False, True]


def test_the_one_who_called_has_the_very_error():
    """With the trace of where it was raised."""
    harness = RecomputeHarness(processes=1)
    error = harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report") as raised:
        harness.call(0)
    assert raised.value is error


def test_a_kept_error_is_a_hit():
    """It is what was asked for, and was there."""
    harness = RecomputeHarness(processes=1, cache_errors=ValueError, error_ttl=10.0)
    harness.source.error = ValueError("no such report")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such report"):
            harness.call(0)
    assert harness.source.calls == 1
    assert (harness.count("misses"), harness.count("hits")) == (1, 1)


def test_no_two_errors_are_the_same():
    """An error that is stored again is another one, for nodes that tell versions by their bytes."""
    request = RecomputeHarness(processes=1).request(Process(World(), [SimulatedNode(World())]))
    payload = request.cluster.payloads.encode(request.name, ["builtins:ValueError", []])
    assert request.seal_error(payload) != request.seal_error(payload)


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_what_cannot_be_read_is_an_error_if_both_say_so(on_error):
    """The client with its `on_error`, and the function's policy with its own."""
    harness = RecomputeHarness(processes=1, on_error=on_error)
    harness.processes[0].cluster.raises = True
    request = harness.request()
    harness.run(request.ask(Set(request.name, (127 << SHIFT, b"of no codec"), 60.0)))
    if on_error == "raise":
        with pytest.raises(DecodeError):
            harness.call(0)
    else:
        assert harness.call(0) == 0


def test_a_value_without_its_tags_is_none():
    """One that was stored without any is not that of a function that has some."""
    harness = RecomputeHarness(processes=1)
    process = harness.processes[0]
    assert harness.run(cached_value.put(harness.request(process), 7)) is True
    assert harness.run(cached_value.peek(harness.request(process))) == 7
    tagged = harness.request(process, tags=("t",))
    assert harness.run(cached_value.peek(tagged)) is NOT_MADE
    assert harness.run(cached_value.get(tagged)) == 0


def test_what_is_put_is_kept_on_the_same_terms():
    """Not what the policy refuses, and not while the version of a tag is unknown."""
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
