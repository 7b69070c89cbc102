"""One process gets the lock: from a majority of the nodes, in time, with whole seconds or without."""

from __future__ import annotations

import math

import pytest

from operations.harness import MEMCACHED, MIXED, REDIS, ROUND_TRIP, LockHarness
from shardcache.core.commands import CompareAndExpire
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockUnavailable, NodeUnavailableError
from shardcache.operations.locks.acquire import attempt
from shardcache.operations.locks.compare import compare_and_change

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)


def test_a_lone_process_takes_the_lock_in_two_round_trips():
    """One command to the gate, then one to each other node; a release frees all of them."""
    harness = LockHarness()
    process = harness.process
    began = harness.now
    hold = harness.attempt(process, POLICY)
    assert harness.writes == [1] * 5
    assert harness.now - began == pytest.approx(2 * ROUND_TRIP)  # two round trips of 2 ms
    assert hold.remaining() == pytest.approx(TTL - 2 * ROUND_TRIP - 0.01 * TTL - ROUND_TRIP)
    task = process.run(hold.release())
    harness.advance(1.0, lambda: task.done)
    assert task.result is True
    assert harness.held == [None] * 5


def test_one_of_many_wins_the_first_round():
    """Two hundred processes that try at once send little more than one command each, and one wins."""
    harness = LockHarness(processes=200)
    commands = harness.record_commands()
    attempts = [attempt(each.cluster, harness.NAME, POLICY) for each in harness.processes]
    tasks = [harness.start(work, place) for place, work in enumerate(attempts)]
    harness.finish(*tasks, within=5.0)
    assert sum(task.result is not None for task in tasks) == 1
    assert len(commands) <= 210


def test_a_silent_gate_is_asked_once():
    """The next node in rank replaces it; one attempt waits for it, for half a call's time."""
    harness = LockHarness()
    process = harness.process
    harness.ranked[0].stopped = True
    began = harness.now
    hold = harness.attempt(process, POLICY)
    assert hold is not None
    assert 0.05 <= harness.now - began <= 0.06
    task = process.run(hold.release())
    harness.advance(1.0, lambda: task.done)
    began = harness.now
    assert harness.attempt(process, POLICY) is not None
    assert harness.now - began <= 0.02


@pytest.mark.parametrize("coarse", [False, True], ids=["compares", "cannot compare"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_two_of_five_failed_nodes_do_not_matter(how, coarse):
    """A majority is enough, and no attempt waits for the rest."""
    harness = LockHarness([coarse] * 5)
    process = harness.process
    for node in harness.ranked[3:]:
        node.up, node.stopped = how != "killed", how == "stopped"
    began = harness.now
    hold = harness.attempt(process, POLICY)
    assert hold is not None
    assert harness.now - began <= 0.02
    began = harness.now
    task = process.run(hold.release())
    harness.advance(1.0, lambda: task.done)
    assert harness.now - began <= 0.02


@pytest.mark.parametrize("coarse", [False, True], ids=["compares", "cannot compare"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize(("which", "calls"), [(slice(3), 2), (slice(1, 4), 1), (slice(2, 5), 1)])
def test_three_of_five_failed_nodes_are_too_many(how, which, calls, coarse):
    """The error comes within the time of the calls, and nothing is left on the two others."""
    harness = LockHarness([coarse] * 5)
    process = harness.process
    for node in harness.ranked[which]:
        node.up, node.stopped = how != "killed", how == "stopped"
    began = harness.now
    with pytest.raises(LockUnavailable) as raised:
        harness.attempt(process, POLICY)
    assert harness.now - began <= calls * process.timeout + 0.02
    assert len(raised.value.errors) == 3
    harness.advance(0.1)
    assert (
        sum(
            node.held(harness.KEY) is not None
            for node in harness.nodes
            if node.up and not node.stopped
        )
        == 0
    )


def test_memcached_costs_a_second():
    """A lease on nodes that count whole seconds ends a second earlier, and never too late."""
    harness = LockHarness(kinds=MEMCACHED)
    process, other, *_ = harness.processes
    hold = harness.attempt(process, POLICY)
    assert hold.remaining() <= TTL - 1.0
    harness.advance(hold.remaining() - 0.01)
    assert harness.attempt(other, POLICY) is None
    assert sum(node.held(harness.KEY) is not None for node in harness.nodes) >= 3


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED, MIXED])
def test_a_late_process_leaves_the_next_holder_alone(kinds):
    """A late release, extension or undo changes nothing of the next holder's."""
    harness = LockHarness(kinds=kinds)
    first, second, *_ = harness.processes
    late = harness.attempt(first, POLICY)
    harness.advance(TTL + 1.0)
    hold = harness.attempt(second, POLICY)
    before = harness.held
    late.lost = ""
    late.grant.until = harness.now + 1.0  # as if its clock had stood still
    for work in (late.extend(8.0), late.release()):
        task = first.run(work)
        harness.advance(0.5)
        assert task.result is False
    assert harness.held == before
    assert harness.world.touched == []
    assert hold.remaining() > 0


def test_an_attempt_that_cannot_win_asks_no_further():
    """When three of five nodes have failed one after another, the other two are not asked."""
    harness = LockHarness()
    process = harness.process
    down, up = harness.ranked[:3], harness.ranked[3:]
    for node in down:
        node.up = False
    with pytest.raises(LockUnavailable):
        harness.attempt(process, POLICY)
    assert [node.store._writes for node in up] == [0, 0]


def test_a_refusing_node_is_no_silent_gate():
    """It costs no time, so the next node is asked alone, and the rest only after its yes."""
    harness = LockHarness()
    first, second, *_ = harness.processes
    *down, gate, fourth, fifth = harness.ranked
    for node in down:
        node.up = False
    assert harness.attempt(first, POLICY) is not None
    commands = harness.record_commands(nodes=[gate, fourth, fifth])
    assert harness.attempt(second, POLICY) is None
    assert len(commands) == 1


@pytest.mark.parametrize(("delay", "won"), [(0.85, True), (0.9, False)])
def test_an_attempt_must_leave_time_to_use(delay, won):
    """A lock that took nearly all of its time to get is dropped, and freed on all nodes."""
    harness = LockHarness(timeout=10.0)
    process = harness.process
    for node in harness.nodes:
        node.delay = delay  # four of them until the answer of the rest is here
    task = process.run(attempt(process.cluster, harness.NAME, POLICY))
    harness.advance(20.0, lambda: task.done)
    assert (task.result is not None) is won
    assert won or harness.held == [None] * 5


@pytest.mark.parametrize("kinds", [(False,) * 3, (True,) * 3, (True, False, True)])
def test_a_failed_node_has_its_error(kinds):
    """Whether its server compares in one step or in two, a failure is not taken for a no."""
    harness = LockHarness(kinds=kinds)
    process = harness.process
    hold = harness.attempt(process, POLICY)
    harness.nodes[0].up = False
    members = [process.cluster.members[f"n{place}"] for place in range(3)]
    asks = [(member, CompareAndExpire(harness.KEY, hold.grant.payload, TTL)) for member in members]
    deadline = process.cluster.deadline()
    task = process.run(
        compare_and_change(process.cluster.ask_members, asks, deadline, lambda _: False)
    )
    harness.advance(0.2)
    assert [type(reply) for reply in task.result] == [NodeUnavailableError, bool, bool]
    assert task.result[1:] == [True, True]


def test_the_holding_time_begins_before_the_attempt():
    """The time to get the lock counts against `max_hold`."""
    harness = LockHarness()
    process = harness.process
    for node in harness.nodes:
        node.delay = 0.02
    began = harness.now
    hold = harness.attempt(process, POLICY)
    assert harness.now > began
    assert hold.since == began


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("ttl", [0.3, 1.0, 1.5, 2.0, 2.5])
def test_a_short_lock_on_memcached_lasts_as_asked(ttl, phase):
    """Its nodes get two seconds at least, and keep it longer than the lease lasts."""
    harness = LockHarness(kinds=MEMCACHED)
    process, other, *_ = harness.processes
    harness.advance(phase)
    policy = LockPolicy(ttl=ttl, renew=False)
    for extends in (False, True):
        hold = harness.attempt(process, policy)
        assert 0.9 * min(ttl, math.ceil(ttl) - 1 or 1) - 0.01 < hold.remaining() < ttl
        if extends:
            harness.advance(hold.remaining() / 2)
            assert harness.run(hold.extend(ttl), process) is True
            assert 0.9 * min(ttl, math.ceil(ttl) - 1 or 1) - 0.01 < hold.remaining() < ttl
        harness.advance(hold.remaining() - 0.01)
        assert harness.attempt(other, policy) is None
        assert sum(node.held(harness.KEY) is not None for node in harness.nodes) == 5
        harness.advance(3.0)
