"""A lock is released: at once, on slow nodes, and by a caller that is interrupted."""

from __future__ import annotations

import pytest

from operations.harness import MEMCACHED, MIXED, ONE_WAY, REDIS, ActAfter, LockHarness
from shardcache.core.events import LeaseLost
from shardcache.core.leases import LockPolicy

KINDS = [REDIS, MEMCACHED, MIXED, (True,), (True,) * 3]
TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED, MIXED])
@pytest.mark.parametrize("tokens", [True, False])
def test_a_released_lock_can_be_taken_at_once(kinds, tokens):
    """The next attempt may not overtake the release on its way to a slow gate."""
    harness = LockHarness(kinds)
    first, second, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    if not tokens:  # as after a renewal whose replies were late
        hold.grant._tokens = dict.fromkeys(hold.grant.members)
    gate = harness.ranked[0]
    gate.delay = 0.02
    task = first.run(hold.release())
    harness.advance(5.0, lambda: task.done)
    gate.delay = ONE_WAY
    assert task.result is True
    assert harness.attempt(second, POLICY) is not None


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED, MIXED])
@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("down", [0, 1, 4])
def test_a_lock_released_with_a_node_ejected_can_be_taken_at_once(kinds, tokens, down):
    """The refusal of an ejected node is not taken for the gate's answer."""
    harness = LockHarness(kinds)
    first, second, *_ = harness.processes
    nodes = harness.ranked
    nodes.pop(down).up = False
    hold = harness.attempt(first, POLICY)
    assert sum(member.health.ejected for member in hold.grant.members) == 1
    if not tokens:
        hold.grant._tokens = dict.fromkeys(hold.grant.members)
    nodes[0].delay = 0.02
    task = first.run(hold.release())
    harness.advance(5.0, lambda: task.done)
    nodes[0].delay = ONE_WAY
    assert task.result is True
    assert harness.attempt(second, POLICY) is not None


def test_a_release_does_not_wait_for_a_silent_gate():
    """The next attempt asks another gate first."""
    harness = LockHarness()
    first, *_ = harness.processes
    hold = harness.attempt(first, POLICY)
    gate = harness.ranked[0]
    gate.stopped = True
    assert harness.attempt(first, POLICY) is None
    began = harness.now
    task = first.run(hold.release())
    harness.advance(5.0, lambda: task.done)
    assert task.result is True
    assert harness.now - began < first.timeout / 2


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_nodes_that_fail_at_the_release_are_no_loss(kinds):
    """A node that does not answer may have had the lock."""
    harness = LockHarness(kinds=kinds)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    for node in harness.nodes[:3]:
        node.up = False
    task = process.run(hold.release())
    harness.advance(1.0, lambda: task.done)
    harness.advance(0.1)
    assert task.result is True


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_a_node_that_is_late_at_the_release_is_freed_later(kinds, known):
    """The release does not wait for it."""
    harness = LockHarness(kinds)
    process, other, *_ = harness.processes
    hold = harness.attempt(process, POLICY)
    if not known:  # as after a renewal
        hold.grant._tokens = dict.fromkeys(hold.grant.members)
    late = harness.ranked[1:] or harness.nodes
    for node in late[-2:]:
        node.stopped = True
    harness.run(hold.release(), process)
    harness.advance(1.0)
    for node in harness.nodes:
        node.resume()
    harness.advance(0.05)
    assert harness.held == [None] * len(harness.nodes)
    assert harness.attempt(other, POLICY) is not None


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("policy", [POLICY, RENEWED])
def test_an_interrupted_release_goes_on_in_the_background(kinds, policy):
    """A signal may raise at any step of its wait."""
    for steps in range(1, 12):
        harness = LockHarness(kinds)
        process = harness.process
        hold = harness.attempt(process, policy)
        task = process.run(hold.release())
        harness.world.watch = ActAfter(steps + 1, task.cancel)  # once it has begun
        harness.advance(0.5, lambda task=task: task.done)
        harness.world.watch = lambda: None
        harness.advance(0.2)
        assert harness.held == [None] * len(harness.nodes), steps


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("moment", [0.25, 0.5, 0.75])
def test_a_release_interrupted_while_a_renewal_ends_goes_on_in_the_background(kinds, moment):
    """It first waits for the renewal: a command of that must not come after the removal."""
    harness = LockHarness(kinds)
    process, other, *_ = harness.processes
    hold = harness.attempt(process, RENEWED)
    for node in harness.nodes:
        node.delay = 0.02
    harness.advance(TTL / 3 + 0.02 - (harness.now - hold.since))  # the renewal is on its way
    task = process.run(hold.release())
    harness.advance(moment * 0.02)
    task.cancel()
    harness.advance(0.0)
    assert task.done
    assert (hold.released, hold.remaining()) == (True, 0.0)
    harness.advance(0.5)
    assert harness.held == [None] * len(harness.nodes)
    assert harness.attempt(other, POLICY) is not None


@pytest.mark.parametrize(("forgets", "lost"), [(2, False), (3, True)])
def test_a_lock_that_its_nodes_have_lost_is_reported_at_its_release(forgets, lost):
    """Once a majority had it no more, another process may have had it meanwhile."""
    harness = LockHarness()
    hold = harness.attempt(harness.process, POLICY)
    for node in harness.ranked[:forgets]:
        node.forget()
    assert harness.run(hold.release()) is not lost
    assert hold.lost == ("it was gone when it was released" if lost else "")
    assert len(harness.events.of(LeaseLost)) == lost


def test_the_release_of_an_expired_lock_says_so():
    """A second release says that there is nothing to be released."""
    harness = LockHarness()
    hold = harness.attempt(harness.process, POLICY)
    harness.advance(TTL)
    assert [harness.run(hold.release()) for _ in range(2)] == [False, False]
    assert hold.lost == "it expired"
    assert len(harness.events.of(LeaseLost)) == 1


def test_a_forked_child_does_not_release_its_parents_lock():
    """It has no part in it: no node is asked, and the parent still holds it."""
    harness = LockHarness()
    hold = harness.attempt(harness.process, POLICY)
    before, io = harness.held, harness.cluster.io
    io.process = lambda: 2
    sent = [len(commands) for commands in harness.received]
    assert hold.remaining() == 0.0
    assert harness.run(hold.release()) is False
    assert [len(commands) for commands in harness.received] == sent
    assert harness.held == before
    del io.process
    assert hold.remaining() > 0.0
    assert harness.run(hold.release()) is True
