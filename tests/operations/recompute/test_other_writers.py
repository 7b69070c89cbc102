"""Other clients write or delete between two steps of a recompute: nothing newer is overwritten."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteCas,
    GetOrStub,
    Gets,
    Set,
    Touch,
    When,
)
from shardcache.core.values.flags import SHIFT
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.claims import BACKING_OFF, NoClaim

MODES = [False, "shard", True]
UNREADABLE = (127 << SHIFT, b"of no codec")
WAIT = 1.0


@pytest.mark.parametrize("lock", MODES)
def test_a_value_stored_after_the_read_is_served(lock):
    """The command that leaves the stub finds it, and the function is not called."""
    harness = RecomputeHarness(processes=1, lock=lock)
    harness.before(GetOrStub, lambda execute: execute(harness.store(7)))
    assert harness.call() == 7
    assert harness.source.calls == 0
    assert harness.stored() == 7


def test_a_value_that_keeps_changing_is_left_to_its_writers():
    """After three tries the function is called, and its result is not stored."""
    harness = RecomputeHarness(processes=1)
    name = harness.request().name

    def rewrite(execute):
        execute(Set(name, UNREADABLE, 60.0))

    rewrite(harness.shard.store.execute)
    harness.before(DeleteCas, rewrite, times=9)
    commands = harness.record_commands()
    assert harness.call() == 0
    assert [type(command) for command in commands][:7] == [
        type(commands[0]),
        *[GetOrStub, DeleteCas] * 3,
    ]
    assert harness.shard.held(name)[0] == UNREADABLE
    assert harness.count("rejected") == 1


def test_a_forced_refresh_yields_to_a_value_that_keeps_changing():
    """While another process refreshes it: three tries, and the newest value stays."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=60.0)
    harness.call()
    request = harness.request()
    execute = harness.shard.store.execute
    execute(Set(request.refresh_key, (0, b"another's"), 60.0))
    harness.before(DeleteCas, lambda execute: execute(harness.store(7, 10.0)), times=9)
    commands = harness.record_commands()
    harness.source.version = 1
    assert harness.run(cached_value.refresh(request)) == 1
    assert [type(command) for command in commands].count(GetOrStub) == 3
    assert harness.stored() == 7
    assert harness.count("rejected") == 1


def test_a_value_that_comes_and_goes_voids_a_recompute():
    """It was stored and deleted while the function ran: nothing is stored over that."""
    harness = RecomputeHarness(processes=1)
    name = harness.request().name
    harness.before(Gets, lambda execute: execute(Delete(name)))
    harness.before(Cas, lambda execute: execute(harness.store(7)))
    assert harness.call() == 0
    assert harness.stored() is None
    assert harness.count("rejected") == 1


class TestTakingOverARefresh:
    """A caller that timed out takes over the refresh of an old value."""

    @pytest.fixture
    def harness(self):
        """Return a harness whose first process hangs in the refresh of an old value."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale_if_error=60.0, wait=WAIT)
        harness.call()
        harness.advance(20.0)
        harness.source.delta = 50.0
        harness.hung = harness.start_call(0)
        harness.advance(0.1)
        harness.source.delta, harness.source.version = DELTA, 1
        return harness

    def call(self, harness):
        """Return what the second process gets, and how long that took."""
        began = harness.now
        (value,) = harness.call_all(1)
        return value, harness.now - began

    def test_its_value_is_stored(self, harness):
        """And the late one is rejected."""
        value, seconds = self.call(harness)
        assert value == harness.stored() == 1
        assert WAIT <= seconds <= WAIT + DELTA + 0.1
        harness.finish(harness.hung, within=60.0)
        assert (harness.hung.result, harness.stored(), harness.count("rejected")) == (0, 1, 1)

    def test_a_newer_value_is_served_instead(self, harness):
        """It was stored just then, and the function is not called."""
        harness.before(Gets, lambda execute: execute(harness.store(7, 10.0)))
        value, seconds = self.call(harness)
        assert value == harness.stored() == 7
        assert seconds <= WAIT + 0.1
        assert harness.source.calls == 2

    def test_an_invalidated_value_is_replaced(self, harness):
        """It was removed just then: the caller leaves a stub, as after a miss."""
        name = harness.request().name
        harness.before(Gets, lambda execute: execute(Delete(name)))
        stubs = harness.record_commands(GetOrStub)
        assert self.call(harness)[0] == 1
        assert len(stubs) == 1
        assert harness.stored() == 1

    def test_a_node_that_fails_just_then_costs_the_store(self, harness):
        """The value is returned, and the old one stays; the mark of the takeover is removed later."""
        shard, request = harness.shard, harness.request()
        execute, taken = shard.store.execute, []

        def executed(command):
            if isinstance(command, Set) and command.when is When.ALWAYS:
                taken.append(command.payload)
                shard.up = False
            return execute(command)

        shard.store.execute = executed
        assert self.call(harness)[0] == 1
        assert harness.stored() == 0
        assert shard.held(request.refresh_key)[0] == taken[0]
        shard.up = True
        harness.advance(3.0)
        assert shard.held(request.refresh_key) is None


def test_an_old_value_beyond_use_does_not_back_off():
    """It cannot be served in place of an error any more, so a failed refresh delays no caller."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale_if_error=20.0, error_backoff=50.0)
    harness.call()
    request = harness.request()
    for command in (Touch(request.name, 100.0), Set(request.refresh_key, BACKING_OFF, 100.0)):
        harness.shard.store.execute(command)
    harness.advance(20.0)
    assert harness.call() == 0  # while it may be served
    assert (harness.count("stale"), harness.source.calls) == (1, 1)
    harness.advance(20.0)
    harness.source.version = 1
    began = harness.now
    assert harness.call() == harness.stored() == 1
    assert harness.now - began <= DELTA + 0.1


def test_a_refresh_mark_is_removed_when_its_node_is_back():
    """The node fails at the end of a refresh: later callers find no mark without a holder."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=60.0)
    harness.call()
    harness.advance(15.0)
    harness.call()
    harness.advance(DELTA / 2)
    request = harness.request()
    harness.shard.up = False
    harness.advance(DELTA)
    assert harness.shard.held(request.refresh_key) is not None
    assert harness.count("cache_errors") == 1
    harness.shard.up = True
    harness.advance(2.0)
    assert harness.shard.held(request.refresh_key) is None
    assert harness.stored() is None  # it was to be replaced


def test_a_mark_without_a_holder_does_not_stay_for_ever():
    """A process that loses every try for longer than any refresh may take removes it."""
    harness = RecomputeHarness(processes=1, ttl=10.0, stale=10_000.0)
    harness.call()
    harness.advance(15.0)
    request = harness.request()
    harness.shard.store.execute(Set(request.refresh_key, (0, b"left behind")))
    harness.source.version = 1
    began = harness.now
    while harness.source.calls == 1:
        assert harness.call() == 0
        harness.advance(1.0)
        assert harness.now - began <= request.patience + 3.0
    assert harness.now - began >= request.patience
    assert harness.call() == 1
    assert harness.shard.held(request.refresh_key) is None


def test_no_claim_stores_and_sends_nothing():
    """It stands for a claim where the node of the value cannot be reached."""
    harness = RecomputeHarness(processes=1)
    claim = NoClaim()
    assert claim.token is None
    assert claim.matches(None, None) is False
    assert harness.run(claim.find_again()) is False
    assert harness.run(claim.renew(5.0)) is False
    for verb in (claim.abandon(5.0), claim.release(), claim.on_stored()):
        assert harness.run(verb) is None
