"""A cached value with its age, in virtual time."""

from __future__ import annotations

import math

import pytest

from operations.cached_harness import RecomputeHarness
from shardcache.core.commands import Peek
from shardcache.errors import NodeRefusedError
from shardcache.operations.recompute import cached_value


def entry(harness, **options):
    """Return the entry that a process reads."""
    return harness.run(cached_value.entry(harness.request(0, **options)))


def test_a_value_that_ages():
    """It is fresh until its ttl ends, then stale, then gone; nothing is recomputed or counted."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0)
    assert entry(harness) is None
    harness.call(0)
    counts = dict(harness.process.protection.counters.counts)
    harness.advance(4.0)
    found = entry(harness)
    assert (found.value, found.fresh) == (0, True)
    assert found.age == pytest.approx(4.0, abs=0.1)
    assert found.age + found.remaining == pytest.approx(10.0)
    harness.advance(8.0)
    found = entry(harness)
    assert (found.value, found.fresh, found.remaining) == (0, False, 0.0)
    assert found.age == pytest.approx(12.0, abs=0.1)
    harness.advance(4.0)
    assert entry(harness) is None
    assert harness.process.protection.counters.counts == counts
    assert harness.source.calls == 1


def test_an_early_refresh_is_none_of_an_entry():
    """A value that will soon be refreshed is fresh."""
    harness = RecomputeHarness(processes=1, ttl=10.0, early=1000.0)
    harness.call(0)
    harness.advance(9.5)
    assert entry(harness).fresh is True


def test_a_value_without_an_expiry():
    """How long it has been stored is not known, only that it stays."""
    harness = RecomputeHarness(processes=1, ttl=None, stale=5.0)
    harness.call(0)
    found = entry(harness)
    assert (found.age, found.remaining, found.fresh) == (None, math.inf, True)


def test_a_value_without_its_age():
    """Its node tells how much longer it keeps it, unless it cannot."""
    harness = RecomputeHarness(processes=1, ttl=10.0)
    harness.call(0)
    harness.advance(4.0)
    found = entry(harness)
    assert (found.value, found.age, found.fresh) == (0, None, True)
    assert found.remaining == pytest.approx(6.0, abs=0.1)
    request = harness.request(0)
    request.member.supports -= {Peek}
    assert entry(harness).remaining is None
    request.member.supports |= {Peek}
    for reply, remaining in ((None, 0.0), (NodeRefusedError("busy"), None)):
        execute = harness.shard.store.execute
        harness.shard.store.execute = lambda command, reply=reply, execute=execute: (
            reply if isinstance(command, Peek) else execute(command)
        )
        assert entry(harness).remaining == remaining
        harness.shard.store.execute = execute


def test_the_clock_of_another_machine():
    """A value is never younger than nothing."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0)
    harness.call(0)
    harness.process.skew = -3.0
    assert entry(harness).age == 0.0


def test_what_is_no_value_has_no_entry():
    """A stub, a cached exception, a value with other tags, bytes that cannot be read."""
    harness = RecomputeHarness(processes=1, ttl=10.0, cache_errors=ValueError, error_ttl=5.0)
    harness.start_call()
    harness.advance(0.1)
    assert entry(harness) is None  # a stub
    harness.advance(1.0)
    assert entry(harness).value == 0
    assert entry(harness, tags=("t",)) is None
    harness.source.error = ValueError("no such report")
    harness.advance(20.0)
    with pytest.raises(ValueError, match="no such report"):
        harness.call(0)
    assert entry(harness) is None
