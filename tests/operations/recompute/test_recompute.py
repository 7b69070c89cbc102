"""A missing value is recomputed by one process or by all, as the policy says, and stored once."""

from __future__ import annotations

import pytest

from lock_service import LockService
from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import LONGEST_PAUSE, MEMCACHED, REDIS
from shardcache.core.events import OperationFinished
from shardcache.core.leases import LockPolicy


@pytest.mark.parametrize(("lock", "calls"), [(False, 8), ("local", 8), ("shard", 1), (True, 1)])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_cold_key(lock, calls, kinds):
    """The policy says which processes recompute; those that wait have the value soon after."""
    harness = RecomputeHarness(kinds=kinds, lock=lock)
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls == calls
    assert harness.now - began <= DELTA + LONGEST_PAUSE
    assert harness.call_all() == [0] * 8  # and now they are hits
    assert harness.source.calls == calls
    assert harness.count("hits") == 8


def test_a_hit_is_one_command():
    """A hit sends a `get` and nothing else, whatever the policy."""
    harness = RecomputeHarness(lock=True, stale=30.0, early=1.0)
    harness.call(0)
    commands = harness.record_commands()
    harness.call(1)
    assert [type(command).__name__ for command in commands] == ["Get"]


def test_the_leader_needs_thirteen_commands():
    """A miss with five lock nodes: get, five locks, begin, commit, five releases."""
    harness = RecomputeHarness(lock=True)
    commands = harness.record_commands()
    harness.call(0)
    names = [type(command).__name__ for command in commands]
    assert names == ["Get", *["Acquire"] * 5, "GetOrStub", "Cas", *["CompareAndDelete"] * 5]


def test_with_three_of_five_lock_nodes_down_each_process_recomputes():
    """No process waits for a lock that none can have."""
    harness = RecomputeHarness(lock=True)
    request = harness.request()
    for node in [node for node in harness.nodes if node is not request.member.backend][:3]:
        node.up = False
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls <= 8
    assert harness.now - began <= DELTA + 0.3
    assert harness.count("locks_unavailable") >= 1


def test_without_the_lock_service_one_process_recomputes():
    """No process waits for a lock: the stub on the key's own node decides."""
    harness = RecomputeHarness(lock=True)
    harness.use_lock_service().reachable = False
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls == 1
    assert harness.now - began <= DELTA + 0.3
    assert harness.count("locks_unavailable") == 8


def test_without_lock_service_and_node_each_process_recomputes():
    """Neither a lock nor a stub can decide: they start at once, side by side."""
    harness = RecomputeHarness(lock=True)
    harness.use_lock_service().reachable = False
    harness.shard.up = False
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls == 8
    assert harness.now - began <= DELTA + 0.2


@pytest.mark.parametrize("dies", [False, True])
def test_a_late_lock_takes_nothing_over_from_a_process_without_one(dies):
    """That has begun while the other asked for the lock: its value is waited for, unless it dies."""
    harness = RecomputeHarness(processes=3, lock=LockPolicy(ttl=4.0))
    service = harness.use_lock_service()
    hasty, late, _ = harness.processes
    hasty.cluster.lock_provider = LockService(lambda: harness.now)
    hasty.cluster.lock_provider.reachable = False

    class Late(LockService):
        async def attempt(self, lock, ttl, deadline):
            await late.cluster.io.sleep(DELTA / 2)
            return await service.attempt(lock, ttl, deadline + DELTA)

    late.cluster.lock_provider = Late(lambda: harness.now)
    first, second = harness.start_call(0), harness.start_call(1)
    harness.advance(0.8 * DELTA)
    hasty.dead = dies
    tasks = [second, harness.start_call(2)] if dies else [first, second]
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert [task.result for task in tasks] == [0, 0]
    assert harness.source.calls == (2 if dies else 1)
    assert harness.stored() == 0


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_lock_service_that_returns_costs_no_recompute_more(kinds, dies):
    """The stub says that its process has no lock: the next holder waits for it, unless it dies."""
    harness = RecomputeHarness(lock=LockPolicy(ttl=4.0), kinds=kinds)
    service = harness.use_lock_service()
    service.reachable = False
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    service.reachable = True
    harness.processes[0].dead = dies
    tasks = [harness.start_call(process) for process in range(1, 8)] + [first] * (not dies)
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert [task.result for task in tasks] == [0] * len(tasks)
    assert harness.source.calls == (2 if dies else 1)
    assert harness.stored() == 0


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_process_without_its_lock_costs_the_node_of_the_value_little(kinds):
    """One command more on memcached, whose own stub cannot say that there is no lock."""
    counts = []
    for lock in ("shard", True):
        harness = RecomputeHarness(processes=1, lock=lock, kinds=kinds)
        harness.use_lock_service().reachable = False
        harness.call(0)
        counts.append(sum(map(len, harness.received)))
    assert counts[1] - counts[0] == (kinds is MEMCACHED)


def test_with_the_node_of_the_value_down_each_process_recomputes():
    """They start at once, side by side."""
    harness = RecomputeHarness(lock=True)
    harness.shard.stopped = True
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls <= 8
    assert harness.now - began <= DELTA + 0.2


def test_an_operation_that_finds_a_value_is_a_hit():
    """Fresh or stale; a value that this call or another recomputed is none."""
    harness = RecomputeHarness(processes=2, lock="shard", ttl=10.0, stale=30.0)
    harness.call_all()
    harness.call(0)
    harness.advance(15.0)
    harness.call(0)
    told = harness.events.of(OperationFinished)
    assert [(event.name, event.keys, event.hits) for event in told] == [
        *[("cached", 1, 0)] * 2,
        *[("cached", 1, 1)] * 2,
    ]
