"""A lock is extended, renewed in the background, or lost."""

from __future__ import annotations

import pytest

from operations.harness import (
    MEMCACHED,
    MIXED,
    ON_THE_WAY,
    ON_THE_WAY_BACK,
    ONE_WAY,
    REDIS,
    ROUND_TRIP,
    LockHarness,
)
from shardcache.core.commands import Acquire
from shardcache.core.events import LeaseLost, Observers
from shardcache.core.leases import LockPolicy
from shardcache.errors import UnsupportedError

KINDS = [REDIS, MEMCACHED, MIXED, (True,), (True,) * 3]
TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


def test_renewal_ends_with_max_hold():
    """A lock is extended every third of its ttl until `max_hold`, and then runs out."""
    harness = LockHarness()
    process, other, *_ = harness.processes
    policy = LockPolicy(ttl=TTL, renew=True, max_hold=20.0)
    hold = harness.attempt(process, policy)
    harness.advance(19.0)
    assert hold.remaining() > 0
    assert harness.attempt(other, POLICY) is None
    harness.advance(TTL + 1.0)
    assert hold.remaining() == 0
    assert harness.attempt(other, POLICY) is not None


def test_a_failed_renewal_loses_the_lock():
    """The first time that no majority agrees, the lock counts as lost."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, RENEWED)
    for node in harness.nodes[:3]:
        node.up = False
    harness.advance(TTL / 3 + 0.5)
    assert hold.lost
    assert hold.remaining() == 0


@pytest.mark.parametrize("order", [(30.0, 1.0), (1.0, 30.0)])
def test_two_extensions_at_once_leave_the_shorter(order):
    """Their commands may reach the nodes in any order, so only the shorter one is sure."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, POLICY)
    tasks = [process.run(hold.extend(seconds)) for seconds in order]
    harness.advance(ONE_WAY)
    assert hold.remaining() <= 1.0
    harness.advance(1.0, lambda: all(task.done for task in tasks))
    assert [task.result for task in tasks] == [True, True]
    assert 0.9 < hold.remaining() <= 1.0


def test_a_renewal_leaves_a_longer_extension_alone():
    """An explicit extension is not shortened in the background."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, RENEWED)
    task = process.run(hold.extend(20.0))
    harness.advance(1.0, lambda: task.done)
    harness.advance(5.0)
    assert hold.remaining() > 14.0


def test_an_extension_never_revives_an_expired_lock():
    """A lock that ran out by the holder's clock is lost, even where nodes still have it."""
    harness = LockHarness(kinds=MEMCACHED)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    harness.advance(hold.remaining() + 0.001)
    assert all(node.held(harness.KEY) is not None for node in harness.nodes)
    task = process.run(hold.extend(8.0))
    harness.advance(1.0, lambda: task.done)
    assert task.result is False
    assert (hold.lost, hold.remaining()) == ("it expired", 0.0)


def test_an_extension_after_a_pause_puts_nothing_back():
    """A process may be paused between its look at the nodes and the extension."""
    harness = LockHarness(kinds=MEMCACHED)
    first, second, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    task = first.run(hold.extend(8.0))
    harness.advance(ON_THE_WAY_BACK)  # the nodes have said that its locks are there
    first.pause(TTL + 2.0)
    harness.advance(TTL + 1.0)
    other = harness.attempt(second, POLICY)
    before = harness.held
    harness.advance(2.0, lambda: task.done)
    harness.advance(0.1)
    assert task.result is False
    assert harness.held == before
    assert harness.world.touched == []
    assert other.remaining() > 0


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("steps", range(12))
def test_a_lock_released_during_its_renewal_is_not_lost(kinds, steps):
    """At every step of the renewal: nothing is left of the lock, and no loss is told."""
    harness = LockHarness(kinds=kinds)
    process = harness.process
    hold = harness.attempt(process, RENEWED)
    harness.advance(TTL / 3 - ROUND_TRIP + steps * ON_THE_WAY)
    task = process.run(hold.release())
    harness.advance(1.0, lambda: task.done)
    assert task.result is True
    assert hold._renewal.stopped
    harness.advance(0.1)
    assert harness.held == [None] * 5
    harness.advance(TTL)
    assert (hold.lost, harness.events.of(LeaseLost)) == ("", [])


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_released_lock_is_not_extended(steps):
    """An extension that has begun, and one that begins then, return `False`; it is no loss."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, POLICY)
    early = process.run(hold.extend(TTL))
    harness.advance(steps * ROUND_TRIP / 5)
    released = process.run(hold.release())
    harness.advance(1.0, lambda: released.done)
    late = process.run(hold.extend(TTL))
    harness.advance(1.0)
    assert (early.result, released.result, late.result) == (False, True, False)
    assert (hold.lost, harness.events.of(LeaseLost)) == ("", [])
    assert harness.held == [None] * 5


def test_a_loss_is_reported_once():
    """Whatever shows it first, and however often the lock is used after that."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, RENEWED)
    for node in harness.nodes:
        node.up = False
    harness.advance(2 * TTL)
    for work in (hold.extend(TTL), hold.release(), hold.release()):
        task = process.run(work)
        harness.advance(1.0, lambda task=task: task.done)
        assert task.result is False
    (event,) = harness.events.of(LeaseLost)
    assert event.name == harness.NAME.encode()
    assert hold.lost == "it could not be extended"


def test_a_renewal_that_raises_loses_the_lock(monkeypatch):
    """A node may have joined a Redis Cluster: the loss is known at once."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, RENEWED)

    async def refuse(*_):
        raise UnsupportedError("the server is part of a Redis Cluster")

    monkeypatch.setattr(type(process.cluster.io), "call_many", refuse)
    harness.advance(TTL / 2)
    assert "could not be extended: the server is part of" in hold.lost
    assert hold.remaining() == 0


@pytest.mark.parametrize(("delay", "kept"), [(0.75, True), (0.95, False)])
def test_an_extension_must_leave_time_to_use(delay, kept):
    """A lock that took nearly all of its new time to extend is lost."""
    harness = LockHarness(timeout=10.0)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    for node in harness.nodes:
        node.delay = delay
    task = process.run(hold.extend(2.0))
    harness.advance(10.0, lambda: task.done)
    assert task.result is kept
    assert bool(hold.lost) is not kept


@pytest.mark.parametrize(("age", "waits"), [(0.0, 0.5), (TTL - 0.5, 0.5)])
def test_an_extension_waits_for_the_call_or_the_lock_to_end(age, waits):
    """Whichever ends first: what is said later is of no use."""
    harness = LockHarness(timeout=waits if not age else 10.0)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    harness.advance(age)
    for node in harness.nodes:
        node.stopped = True
    asked = harness.world.now
    task = process.run(hold.extend(TTL))
    harness.advance(20.0, lambda: task.done)
    assert task.result is False
    assert harness.world.now - asked <= waits + 0.01


def test_an_extension_on_memcached_costs_a_second_too():
    """The lease ends before nodes that count whole seconds drop it."""
    harness = LockHarness(kinds=MEMCACHED)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    task = process.run(hold.extend(8.0))
    harness.advance(1.0, lambda: task.done)
    assert task.result is True
    assert 6.0 < hold.remaining() <= 7.0
    harness.advance(hold.remaining() - 0.01)
    assert sum(node.held(harness.KEY) is not None for node in harness.nodes) >= 3


@pytest.mark.parametrize("kinds", [(False,) * 3, (True,) * 3, (True, False, True), MEMCACHED])
def test_a_rolling_restart_loses_no_renewed_lock(kinds):
    """Nodes come back empty, one after another: each gets the token again."""
    harness = LockHarness(kinds)
    process, other, *_ = harness.processes
    policy = LockPolicy(ttl=TTL, renew=True, max_hold=1000.0)
    hold = harness.attempt(process, policy)
    for node in harness.nodes:
        node.up = False
        harness.advance(0.3)
        node.forget()
        node.up = True
        harness.advance(2 * TTL)
        assert hold.remaining() > 0
        assert node.held(harness.KEY) is not None
        assert harness.attempt(other, POLICY) is None
    assert harness.run(hold.release(), process) is True
    harness.advance(0.05)
    assert harness.held == [None] * len(harness.nodes)


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("forgets", [True, False])
def test_a_slow_node_is_extended_too(kinds, forgets):
    """The holder does not wait for it, but it may be needed for a later majority."""
    harness = LockHarness(kinds)
    process = harness.process
    hold = harness.attempt(process, RENEWED)
    slow = harness.nodes[2]
    slow.delay = 0.02
    if forgets:
        slow.forget()
    harness.advance(3 * TTL)
    assert hold.remaining() > 0
    assert slow.held(harness.KEY) is not None
    slow.delay = ONE_WAY
    harness.run(hold.release(), process)
    harness.advance(0.1)
    assert slow.held(harness.KEY) is None


@pytest.mark.parametrize("kinds", KINDS[:3])
def test_an_extension_never_overwrites_another_holder(kinds):
    """Nodes that lost the lock and were taken by another process stay with it."""
    harness = LockHarness(kinds)
    first, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    for node in harness.nodes[:3]:
        node.forget()
        node.store.execute(Acquire(harness.KEY, (256, b"another's"), 60.0))
    assert harness.run(hold.extend(TTL), first) is False
    assert hold.lost == "it could not be extended"
    assert [node.held(harness.KEY)[0][1] for node in harness.nodes[:3]] == [b"another's"] * 3


@pytest.mark.parametrize("kinds", KINDS[:3])
def test_an_expired_lock_is_not_put_back(kinds):
    """A process that was paused while it looked for its locks creates nothing."""
    harness = LockHarness(kinds)
    first, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    for node in harness.nodes:
        node.forget()
    task = first.run(hold.extend(8.0))
    harness.advance(ON_THE_WAY_BACK)  # the nodes have said that they are gone
    first.pause(TTL + 2.0)
    harness.advance(TTL + 3.0)
    assert task.result is False
    assert harness.writes == [0] * 5


@pytest.mark.parametrize("kinds", KINDS[:3])
@pytest.mark.parametrize("steps", range(1, 10))
def test_a_lock_released_while_it_is_put_back_is_gone(kinds, steps):
    """At every step of the extension: a moment later no node has it."""
    harness = LockHarness(kinds)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    for node in harness.nodes[:2]:
        node.forget()
    task = process.run(hold.extend(TTL))
    harness.advance(steps * ON_THE_WAY)
    harness.run(hold.release(), process)
    harness.advance(0.3)
    assert task.done
    assert harness.held == [None] * 5


@pytest.mark.parametrize("kinds", KINDS[:3])
def test_a_late_extension_of_a_released_lock_is_not_begun(kinds):
    """A node that was not awaited is extended in the background, unless the lock has ended by then."""
    harness = LockHarness(kinds)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    late = harness.nodes[-1]
    late.delay = 0.04
    extending = harness.start(hold.extend(TTL), process)
    harness.advance(1.0, lambda: extending.done)
    assert extending.result is True
    hold.released = True
    hold.grant.end(lost=False)
    sent = len(harness.received[-1])
    harness.advance(1.0)
    assert len(harness.received[-1]) == sent


def test_a_loss_without_observers_is_a_loss():
    """No event is sent, and the holder finds out when it looks."""
    harness = LockHarness()
    harness.cluster.observers = Observers(())
    hold = harness.attempt(harness.process, POLICY)
    for node in harness.nodes:
        node.up = False
    assert harness.run(hold.extend(TTL)) is False
    assert (hold.lost, hold.remaining()) == ("it could not be extended", 0.0)
    assert harness.events.of(LeaseLost) == []
