"""A lock of any provider is waited for, renewed, extended, lost and released in one way."""

from __future__ import annotations

import pytest

from lock_service import LockService, TellingService
from operations.harness import LockHarness
from operations.later import Cancelled
from shardcache.core.events import LeaseLost
from shardcache.core.leases import LockPolicy
from shardcache.core.lock_providers import LockOptions, LockScope, Refusal
from shardcache.errors import ConfigurationError, LockTimeout, LockUnavailable, UnsupportedError
from shardcache.operations.locks.acquire import (
    acquire,
    attempt,
    attempt_or_refusal,
    break_lock,
    find_holder,
    is_held,
    list_holders,
)
from shardcache.operations.locks.held import HeldLock
from shardcache.operations.locks.redlock import Redlock, RedlockFactory, lock_nodes

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


class ServiceHarness(LockHarness):
    """Three processes whose locks are those of one service."""

    def __init__(self, kind: type[LockService] = LockService) -> None:
        super().__init__()
        self.service = kind(lambda: self.now)
        for process in self.processes:
            process.cluster.lock_provider = self.service

    def look(self, work, place=0):
        """Run an operation, and return its result."""
        return self.run(work(self.processes[place].cluster, self.NAME), place)


def test_one_process_holds_it_at_a_time():
    """The next holder has a larger fence; no node is asked for anything."""
    harness = ServiceHarness()
    first = harness.attempt(0, POLICY)
    assert harness.attempt(1, POLICY) is None
    assert (harness.look(is_held, 1), first.remaining()) == (True, TTL)
    assert harness.run(first.release()) is True
    second = harness.attempt(1, POLICY)
    assert second.grant.fence > first.grant.fence
    assert lock_nodes(harness.cluster, harness.NAME) == ()
    assert not any(harness.received)


def test_a_refusal_says_why():
    """A lock for a recompute is another one than that of a caller."""
    harness = ServiceHarness()
    harness.attempt(0, POLICY)
    cluster = harness.processes[1].cluster
    work = attempt_or_refusal(cluster, harness.NAME, POLICY)
    assert harness.run(work, 1) is Refusal.HELD
    work = attempt_or_refusal(cluster, harness.NAME, POLICY, LockScope.RECOMPUTE)
    assert isinstance(harness.run(work, 1), HeldLock)


def test_a_waiter_tries_again_until_its_time_is_over():
    """With the pauses of a waiter for any lock."""
    harness = ServiceHarness()
    harness.attempt(0, LockPolicy(ttl=60.0, renew=False))
    task = harness.start(acquire(harness.processes[1].cluster, harness.NAME, POLICY, 1.0), 1)
    began = harness.now
    harness.finish(task)
    assert isinstance(task.error, LockTimeout)
    assert harness.now - began == pytest.approx(1.0, abs=0.01)
    assert 10 < harness.service.calls.count("attempt") < 30


def test_a_service_that_cannot_be_reached_is_no_refusal():
    """The error reaches the caller at once."""
    harness = ServiceHarness()
    harness.service.reachable = False
    for work in (attempt, is_held):
        arguments = (POLICY,) if work is attempt else ()
        with pytest.raises(LockUnavailable, match="cannot be reached"):
            harness.run(work(harness.cluster, harness.NAME, *arguments))


def test_a_renewed_lock_is_kept_until_its_longest_time():
    """Every third of the ttl; after `max_hold` it runs out."""
    harness = ServiceHarness()
    hold = harness.attempt(0, RENEWED)
    harness.advance(RENEWED.max_hold - TTL)
    assert hold.remaining() > 0
    assert harness.attempt(1, POLICY) is None
    harness.advance(2 * TTL)
    assert harness.attempt(1, POLICY) is not None
    assert harness.run(hold.release()) is False
    assert hold.lost == "it expired"


def test_a_renewal_that_reaches_no_service_is_tried_again():
    """The lock counts down meanwhile, and is kept if the service is back in time."""
    harness = ServiceHarness()
    hold = harness.attempt(0, RENEWED)
    harness.service.reachable = False
    harness.advance(TTL / 2)
    assert 0 < hold.remaining() < TTL
    harness.service.reachable = True
    harness.advance(2 * TTL)
    assert hold.remaining() > TTL / 2
    assert harness.events.of(LeaseLost) == []


def test_a_renewal_that_reaches_no_service_for_too_long_loses_the_lock():
    """The holder is told when its time is over."""
    harness = ServiceHarness()
    hold = harness.attempt(0, RENEWED)
    harness.service.reachable = False
    harness.advance(2 * TTL)
    assert hold.lost == "it expired"
    assert len(harness.events.of(LeaseLost)) == 1
    assert hold.grant.ends == [True]


def test_an_extension_that_reaches_no_service_is_an_error():
    """The lock is not lost: it goes on counting down."""
    harness = ServiceHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.reachable = False
    with pytest.raises(LockUnavailable):
        harness.run(hold.extend(TTL))
    assert (hold.lost, hold.remaining() > 0) == ("", True)
    harness.service.reachable = True
    assert harness.run(hold.extend(2 * TTL)) is True
    assert hold.remaining() == 2 * TTL


def test_a_loss_that_the_service_tells_is_known_at_once():
    """An event, `lost`, and nothing left: told once, however often it is used after that."""
    harness = ServiceHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.expire()
    harness.service.expire()
    assert (hold.lost, hold.remaining()) == ("its session expired", 0.0)
    assert [harness.run(hold.extend(TTL)), harness.run(hold.release())] == [False, False]
    assert len(harness.events.of(LeaseLost)) == 1
    assert hold.lost == "its session expired"


def test_a_loss_that_is_reported_during_an_extension_counts():
    """Whatever the service has answered."""
    harness = ServiceHarness()
    hold = harness.attempt(0, POLICY)
    extend = hold.grant.extend

    async def lose_meanwhile(ttl, deadline):
        agreed = await extend(ttl, deadline)
        harness.service.expire()
        return agreed

    hold.grant.extend = lose_meanwhile
    assert harness.run(hold.extend(TTL)) is False
    assert hold.lost == "its session expired"


def test_a_session_that_ends_after_the_release_is_no_loss():
    """No event is sent."""
    harness = ServiceHarness()
    hold = harness.attempt(0, POLICY)
    harness.service.reachable = False  # it keeps the lock
    assert harness.run(hold.release()) is True
    harness.service.expire()
    assert (hold.lost, harness.events.of(LeaseLost)) == ("", [])
    assert hold.grant.ends == [False]


def test_a_lock_that_was_taken_away_is_reported_at_the_release():
    """Or at an extension, whichever comes first."""
    harness = ServiceHarness(TellingService)
    hold = harness.attempt(0, POLICY)
    assert harness.look(break_lock, 1) is True
    assert harness.attempt(1, POLICY) is not None
    assert harness.run(hold.release()) is False
    assert hold.lost == "it was gone when it was released"


def test_a_grant_whose_holder_is_interrupted_is_released():
    """Before the caller has it, no other caller could release it."""
    harness = ServiceHarness()

    def interrupt(*_):
        raise Cancelled

    harness.cluster.io.repeat = interrupt
    with pytest.raises(Cancelled):
        harness.run(attempt(harness.cluster, harness.NAME, RENEWED))
    assert harness.service.held == {}


def test_a_forked_child_neither_extends_nor_releases():
    """It has no part in the lock, and its parent still holds it."""
    harness = ServiceHarness()
    hold = harness.attempt(0, POLICY)
    io = harness.cluster.io
    io.process = lambda: 2
    assert hold.remaining() == 0.0
    assert [harness.run(hold.extend(TTL)), harness.run(hold.release())] == [False, False]
    assert harness.service.calls == ["attempt"]
    del io.process
    assert hold.remaining() == TTL


def test_the_built_in_provider_is_made_like_any_other():
    """For both clients alike; it has no URL, and the client closes its nodes."""
    factory, harness = RedlockFactory(), LockHarness()
    for make in (factory.blocking, factory.asyncio):
        assert isinstance(make("redlock", LockOptions()), Redlock)
        with pytest.raises(ConfigurationError, match="redlock has no URL"):
            make("redlock://h", LockOptions())
    hold = harness.attempt(0, POLICY)
    assert [node.held(harness.KEY)[0][1] for node in harness.nodes] == [hold.grant.token] * 5
    harness.run(harness.cluster.lock_provider.close())
    assert hold.remaining() > 0


class TestHolders:
    """Who holds a lock, as far as a provider can tell."""

    def test_a_service_tells_who_holds_its_locks(self):
        """One by name, or all of them."""
        harness = ServiceHarness(TellingService)
        assert (harness.look(find_holder), harness.run(list_holders(harness.cluster))) == (None, [])
        assert harness.look(break_lock) is False
        hold = harness.attempt(0, POLICY)
        harness.advance(1.0)
        found = harness.look(find_holder, 1)
        assert (found.name, found.scope) == (harness.NAME.encode(), LockScope.CALLER)
        assert (found.remaining, found.fence) == (TTL - 1.0, hold.grant.fence)
        assert harness.run(list_holders(harness.cluster)) == [found]
        work = find_holder(harness.cluster, harness.NAME, LockScope.RECOMPUTE)
        assert harness.run(work) is None

    def test_a_service_that_cannot_tell_says_so(self):
        """Instead of an answer that looks like a free lock."""
        harness = ServiceHarness()
        for work in (find_holder, break_lock):
            with pytest.raises(UnsupportedError, match="cannot tell who holds"):
                harness.look(work)
        with pytest.raises(UnsupportedError, match="cannot tell who holds"):
            harness.run(list_holders(harness.cluster))

    @pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5, (True, False, True)])
    def test_a_majority_of_nodes_tells_for_how_long(self, kinds):
        """By name alone, for nodes cannot list what they have."""
        harness = LockHarness(kinds)
        cluster = harness.processes[1].cluster
        with pytest.raises(UnsupportedError, match="name the lock"):
            harness.run(list_holders(cluster), 1)
        assert harness.run(find_holder(cluster, harness.NAME), 1) is None
        hold = harness.attempt(0, POLICY)
        found = harness.run(find_holder(cluster, harness.NAME), 1)
        assert hold.remaining() < found.remaining <= TTL
        assert found._replace(remaining=None) == (b"report", LockScope.CALLER, *[None] * 4)

    def test_nodes_that_do_not_tell_ages_tell_that_it_is_held(self):
        """As those of memcached's classic protocol."""
        harness = LockHarness()
        harness.attempt(0, POLICY)
        for member in harness.cluster.members.values():
            member.supports = frozenset()
        found = harness.run(find_holder(harness.cluster, harness.NAME))
        assert (found.name, found.remaining) == (b"report", None)

    @pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
    def test_a_lock_on_nodes_is_taken_away(self, kinds):
        """The next client has it at once, and its holder loses it."""
        harness = LockHarness(kinds)
        cluster = harness.processes[1].cluster
        assert harness.run(break_lock(cluster, harness.NAME), 1) is False
        hold = harness.attempt(0, POLICY)
        assert harness.run(break_lock(cluster, harness.NAME), 1) is True
        assert harness.held == [None] * 5
        assert harness.attempt(1, POLICY) is not None
        assert harness.run(hold.extend(TTL)) is False
        assert hold.lost == "it could not be extended"
