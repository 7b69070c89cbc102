"""Results of a declared type: equal for all callers, and a miss where the stored one does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from operations.cached_harness import RecomputeHarness
from operations.virtual import LoopHarness
from shardcache.core.codecs import Msgpack
from shardcache.core.commands import Set
from shardcache.core.events import DecodeFailed
from shardcache.core.own_types.choice import declare
from shardcache.core.values.payloads import Payloads
from shardcache.core.values.typed import InvalidValueError
from shardcache.errors import DecodeError, EncodeError, UncacheableResultError
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.outcomes import NO_VALUE


@dataclass
class Price:
    """A result."""

    amount: float


@dataclass
class Discount(Price):
    """A result that a declared `Price` would lose."""

    share: float = 0.5


class Notes:
    """What a process reports, in order."""

    def __init__(self, *processes):
        self.lines = []
        for process in processes:
            process.protection.notes = self

    def value_not_valid(self, function, error):
        """Note a stored value."""
        assert isinstance(error, InvalidValueError)
        self.lines.append((function, str(error)))

    def result_not_stored(self, _, error):
        """Note a result."""
        self.lines.append(str(error))


def typed(**options):
    """Return a harness of one function whose results are prices."""
    harness = RecomputeHarness(processes=1, **options)
    harness.payloads = Payloads(Msgpack(), None, declare(Price))
    harness.source.version = Price(1)
    return harness


def plant(harness, value):
    """Store a value as a client without the type does."""
    request = harness.request()
    harness.run(request.ask(Set(request.name, Payloads(Msgpack()).dump(request.name, value), 60.0)))


@pytest.mark.parametrize("options", [{}, {"lock": "shard"}, {"lock": True}, {"stale": 60}])
def test_the_first_call_and_a_hit_get_the_same(options):
    """Each gets a value of the declared type, and an object of its own."""
    harness = typed(**options)
    first, second = harness.call(), harness.call()
    assert [first, second] == [Price(1.0)] * 2
    assert {type(each.amount) for each in (first, second)} == {float}
    assert harness.source.version is not first is not second
    assert (harness.source.calls, harness.count("hits")) == (1, 1)


def test_callers_of_a_flight_get_objects_of_their_own():
    """What one changes no other sees."""
    harness = LoopHarness(clients=1, tags=())
    harness.payloads = Payloads(Msgpack(), None, declare(list[Price]))
    harness.version = [Price(1)]
    results = harness.results([harness.start_call() for _ in range(5)])
    assert results == [[Price(1.0)]] * 5
    assert len({id(each[0]) for each in [*results, harness.version]}) == 6
    assert harness.calls == 1
    harness.close()


@pytest.mark.parametrize("on_error", ["compute", "raise"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_stored_value_that_does_not_fit_is_a_miss(on_error, raises):
    """A deploy leaves such values: they are counted, noted, replaced, and no error under any policy."""
    harness = typed(on_error=on_error)
    harness.processes[0].cluster.raises = raises
    notes = Notes(*harness.processes)
    plant(harness, {"amount": "hunter2"})
    assert harness.run(cached_value.peek(harness.request())) is NO_VALUE
    assert harness.call() == harness.call() == Price(1.0)
    assert (harness.count("misses"), harness.count("hits")) == (1, 1)
    assert harness.source.calls == 1
    function = harness.request().function
    line = f"not a valid {Price.__module__}.Price: Expected `float`, got `str` - at `$.amount`"
    assert set(notes.lines) == {(function, line)}
    assert harness.events.of(DecodeFailed)


def test_a_follower_whose_type_does_not_fit_recomputes():
    """Two functions of one key may declare different types; each gets its own."""
    harness = LoopHarness(clients=1, tags=())
    harness.version = [1]
    plain = harness.start_call()
    harness.advance(0.01)
    harness.payloads = Payloads(Msgpack(), None, declare(dict[str, int]))
    harness.version = {"a": 1}
    other = harness.start_call()
    assert harness.results([plain, other]) == [[1], {"a": 1}]
    assert harness.calls == 2
    harness.close()


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_other_bytes_are_a_decode_error_as_before(on_error):
    """What no codec wrote is trouble of the cache."""
    harness = typed(on_error=on_error)
    harness.processes[0].cluster.raises = True
    request = harness.request()
    harness.run(request.ask(Set(request.name, (32 << 16, b"\xc1"), 60.0)))
    if on_error == "raise":
        with pytest.raises(DecodeError):
            harness.call()
    else:
        assert harness.call() == Price(1.0)


def test_a_result_that_does_not_fit_is_returned_uncached():
    """It is the function's own object."""
    harness = typed()
    notes = Notes(*harness.processes)
    lost = harness.source.version = Discount(1.0)
    assert harness.call() is lost
    assert harness.count("uncached") == 1
    assert harness.stored() is None
    module = Price.__module__
    assert notes.lines == [
        f"the result would be read back with {module}.Price in place of {module}.Discount"
    ]
    strict = typed(on_uncacheable="raise")
    strict.source.version = lost
    with pytest.raises(UncacheableResultError, match=r"Price in place of .*Discount"):
        strict.call()


def test_a_value_that_is_put_is_checked():
    """Who stores a value by hand gets the error."""
    harness = typed()
    assert harness.run(cached_value.put(harness.request(), Price(2))) is True
    assert harness.call() == Price(2.0)
    with pytest.raises(EncodeError):
        harness.run(cached_value.put(harness.request(), Discount(1)))


def test_a_result_that_is_not_kept_is_shared_as_well():
    """Those who waited get copies of it; nothing is stored."""
    harness = LoopHarness(clients=1, tags=(), condition=lambda _: False)
    harness.payloads = Payloads(Msgpack(), None, declare(Price))
    harness.version = Price(1)
    assert harness.results([harness.start_call() for _ in range(3)]) == [Price(1.0)] * 3
    assert harness.calls == 1
    harness.close()


def test_kept_errors_have_no_type():
    """An exception in place of a value is stored as it is, and raised again."""
    harness = typed(cache_errors=ValueError, error_ttl=10.0)
    harness.source.error = ValueError("no such price")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such price"):
            harness.call()
    assert harness.source.calls == 1


def test_events_hold_no_value():
    """Observers receive the error, which quotes nothing."""
    harness = typed()
    plant(harness, {"amount": "hunter2"})
    harness.call()
    events = harness.events.of(DecodeFailed)
    assert events
    for event in events:
        assert "hunter2" not in str(event)
        assert event.error.__context__ is event.error.__cause__ is None
