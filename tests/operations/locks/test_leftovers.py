"""What an attempt leaves on nodes when it fails or is cancelled is removed later."""

from __future__ import annotations

import pytest

from operations.harness import (
    A_FEW_ROUND_TRIPS,
    MEMCACHED,
    MIXED,
    ONE_WAY,
    REDIS,
    ROUND_TRIP,
    ActAfter,
    LockHarness,
)
from shardcache.core.commands import Gets
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockUnavailable
from shardcache.operations.cluster.leftovers import remove_later
from shardcache.operations.locks.acquire import attempt

KINDS = [REDIS, MEMCACHED, MIXED, (True,), (True,) * 3]
TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)


def test_a_late_grant_is_released():
    """A slow node may grant the lock after the attempt has failed."""
    harness = LockHarness()
    process = harness.process
    first, *others = harness.ranked
    for node in others[:3]:
        node.up = False
    first.delay = 0.12  # its answer comes after the call's time
    with pytest.raises(LockUnavailable):
        harness.attempt(process, POLICY)
    harness.advance(2.0)
    assert harness.held == [None] * 5


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("delay", [0.0005, 0.002, 0.01])
def test_a_cancelled_attempt_keeps_no_lock(kinds, delay):
    """Cancelled at any step: five round trips later another process can have the lock."""
    for steps in range(1, 40):
        harness = LockHarness(kinds)
        process, other, *_ = harness.processes
        for node in harness.nodes:
            node.delay = delay
        task = process.run(attempt(process.cluster, harness.NAME, POLICY))
        harness.world.watch = ActAfter(steps, task.cancel)
        harness.advance(1.0, lambda task=task: task.done)
        if task.result is not None:
            break
        harness.world.watch = lambda: None
        harness.advance(10 * delay)
        assert harness.held == [None] * len(kinds), steps
        assert harness.attempt(other, POLICY) is not None
    assert steps >= 4


@pytest.mark.parametrize("kinds", KINDS)
def test_a_cancelled_process_does_not_block_itself(kinds):
    """Its next attempt waits until its leftovers are gone, and gets the lock."""
    for steps in range(1, 12):
        harness = LockHarness(kinds)
        process = harness.process
        task = process.run(attempt(process.cluster, harness.NAME, POLICY))
        harness.world.watch = ActAfter(steps, task.cancel)
        harness.advance(1.0, lambda task=task: task.done)
        harness.world.watch = lambda: None
        if task.result is None:
            assert harness.attempt(process, POLICY) is not None, steps


@pytest.mark.parametrize("kinds", KINDS)
def test_grants_of_silent_nodes_are_released_when_they_go_on(kinds):
    """However long after the call that is, and though the nodes were ejected meanwhile."""
    for tries in (1, 4):
        harness = LockHarness(kinds)
        process, other, *_ = harness.processes
        for node in harness.ranked[: len(harness.nodes) // 2 + 1]:
            node.stopped = True
        for _ in range(tries):
            with pytest.raises(LockUnavailable):
                harness.attempt(process, POLICY)
        harness.advance(2 * TTL)
        for node in harness.nodes:
            node.resume()
        harness.advance(0.05)
        assert harness.held == [None] * len(harness.nodes)
        assert harness.attempt(other, POLICY) is not None


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("loses", ["commands", "replies"])
def test_a_connection_that_breaks_leaves_no_lock(kinds, loses):
    """The command may have arrived, so the node is asked."""
    harness = LockHarness(kinds)
    process = harness.process
    for node in harness.nodes:
        node.loses = loses
    with pytest.raises(LockUnavailable):
        harness.attempt(process, POLICY)
    for node in harness.nodes:
        node.loses = ""
    harness.advance(TTL / 2)
    assert harness.held == [None] * len(harness.nodes)


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_grant_behind_the_first_look_is_released_too(kinds):
    """Over another connection the look may overtake the command."""
    harness = LockHarness(kinds)
    process = harness.process
    gate = harness.ranked[0]
    gate.delay = slow = 0.03
    sent = harness.now
    task = process.run(attempt(process.cluster, harness.NAME, POLICY))
    harness.advance(ONE_WAY)
    gate.delay = ONE_WAY
    task.cancel()
    harness.advance(A_FEW_ROUND_TRIPS)  # the first look has found nothing
    assert gate.held(harness.KEY) is None
    harness.advance(sent + slow + ROUND_TRIP - harness.now)  # the command has arrived
    assert gate.held(harness.KEY) is not None
    harness.advance(0.1)
    assert gate.held(harness.KEY) is None


def test_a_dead_node_is_not_asked_for_leftovers():
    """It refuses at once, so only the prober asks whether it is back."""
    harness = LockHarness()
    process = harness.process
    hold = harness.attempt(process, POLICY)
    dead = harness.ranked[4]
    dead.up = False
    harness.run(hold.release(), process)
    harness.advance(0.5)
    asked_for = []
    dead.ask = lambda *call: asked_for.append(call)
    harness.advance(0.5)
    assert len([call for call in asked_for if isinstance(call[1], Gets)]) == 0
    assert any(member.leftovers for member in hold.grant.members)
    harness.advance(60.0)
    assert not any(member.leftovers for member in hold.grant.members)


def test_the_leftovers_of_a_node_are_bounded():
    """The oldest ones beyond the bound expire by themselves; the newest are kept."""
    harness = LockHarness()
    process = harness.process
    (member, *_) = process.cluster.members.values()
    harness.nodes[0].up = False
    harness.run(process.cluster.ask(member, Gets(harness.KEY)), process)
    for number in range(1500):
        remove_later(process.cluster, [member], harness.KEY, (256, b"%d" % number))
        remove_later(process.cluster, [member], harness.KEY, (256, b"%d" % number))
        assert len(member.leftovers) == min(number + 1, 1000)
    assert [token for _, (_, token) in member.leftovers] == [b"%d" % n for n in range(500, 1500)]
    harness.advance(60.0)
    assert member.leftovers == {}
