"""How long a process waits for a lock that another holds."""

from __future__ import annotations

import pytest

from operations.harness import LockHarness
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockTimeout
from shardcache.operations.locks.acquire import acquire
from shardcache.operations.locks.held import HeldLock

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)


def test_a_waiter_gets_the_lock_when_it_is_released():
    """`acquire` tries until its time is over, and then says who holds the lock."""
    harness = LockHarness()
    first, second, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    task = second.run(acquire(second.cluster, harness.NAME, POLICY, 1.0))
    harness.advance(5.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)
    task = second.run(acquire(second.cluster, harness.NAME, POLICY, 1.0))
    harness.advance(0.5)
    first.run(hold.release())
    harness.advance(0.2)
    assert isinstance(task.result, HeldLock)


def test_a_long_wait_goes_on_to_its_end():
    """A waiter keeps trying, however long it may wait."""
    harness = LockHarness()
    holder, waiter, *_ = harness.processes
    held = LockPolicy(ttl=4.0, renew=True, max_hold=2000.0)
    harness.attempt(holder, held)
    task = waiter.run(acquire(waiter.cluster, harness.NAME, POLICY, 600.0))
    harness.advance(700.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)


def test_a_waiter_waits_no_longer_than_asked():
    """The pauses of its backoff may be longer."""
    harness = LockHarness()
    first, second, *_ = harness.processes
    harness.attempt(first, POLICY)
    policy = LockPolicy(ttl=TTL, renew=False, backoff=lambda _: 30.0)
    began = harness.now
    task = second.run(acquire(second.cluster, harness.NAME, policy, 1.0))
    harness.advance(60.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)
    assert harness.now - began == pytest.approx(1.0, abs=0.1)


def test_a_wait_of_none_never_times_out():
    """The waiter gets the lock when it is released, after any time."""
    harness = LockHarness()
    holder, waiter, *_ = harness.processes
    held = LockPolicy(ttl=4.0, renew=True, max_hold=2000.0)
    hold = harness.attempt(holder, held)
    task = waiter.run(acquire(waiter.cluster, harness.NAME, POLICY, None))
    harness.advance(1500.0)
    assert not task.done
    harness.run(hold.release(), holder)
    harness.advance(0.5)
    assert isinstance(task.result, HeldLock)
