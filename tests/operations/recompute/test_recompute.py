"""Computed values in a world of virtual time: who computes, who waits, and what is stored."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from operations.harness import (
    A_FEW_ROUND_TRIPS,
    AFTER_FIRST_LOOK,
    AFTER_MAJORITY,
    DELTA,
    LONGEST_PAUSE,
    MEMCACHED,
    ON_THE_WAY,
    ON_THE_WAY_BACK,
    REDIS,
    RecomputeHarness,
)
from operations.simulation import Process, SimulatedNode, World
from shardcache.core.caching import CachePolicy
from shardcache.core.commands import Acquire, Cas, Delete, GetOrStub, Set
from shardcache.core.envelopes import pack
from shardcache.core.events import ComputeFinished, StampedePrevented
from shardcache.core.freshness import open_stored, seal
from shardcache.core.leases import LockPolicy
from shardcache.core.payloads import ENVELOPE_FLAGS, SHIFT, is_abandoned, is_mark
from shardcache.core.reserved import VALUE_LOCKS
from shardcache.errors import DecodeError, NodeRefusedError, RecomputeTimeoutError
from shardcache.operations.locks import redlock
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.claims import BACKING_OFF
from shardcache.operations.recompute.outcomes import NOT_MADE
from shardcache.operations.recompute.protection import LOST_PAUSE
from shardcache.operations.recompute.recompute import begin, claim_refresh

LOCK = LockPolicy(ttl=4.0)
MODES = [False, "shard", True]


@pytest.mark.parametrize(("lock", "calls"), [(False, 8), ("local", 8), ("shard", 1), (True, 1)])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_cold_key(lock, calls, kinds):
    """Who computes is as the policy says, and who waits has the value soon after."""
    harness = RecomputeHarness(kinds=kinds, lock=lock)
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls == calls
    assert harness.now - began <= DELTA + LONGEST_PAUSE
    assert harness.call_all() == [0] * 8  # and now they are hits
    assert harness.source.calls == calls
    assert harness.count("hits") == 8


def test_a_hit_is_one_command():
    """Nothing but a `get` is sent for it, whatever the policy."""
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


@pytest.mark.parametrize("lock", ["shard", LOCK])
def test_a_killed_leader_is_replaced(lock):
    """When it has died half-way, another begins as soon as its lease has run out."""
    harness = RecomputeHarness(processes=4, lock=lock)
    harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].dead = True
    began = harness.now
    others = [harness.start_call(place) for place in (1, 2, 3)]
    ttl = LOCK.ttl if lock is LOCK else 5.0
    harness.advance(20.0, lambda: harness.source.calls == 2)
    assert harness.now - began <= ttl + LONGEST_PAUSE
    harness.advance(20.0, lambda: all(task.done for task in others))
    assert [task.result for task in others] == [0, 0, 0]
    assert harness.source.calls == 2


@pytest.mark.parametrize("lock", ["shard", LOCK])
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
def test_a_stopped_leader_stores_nothing_late(lock, kinds):
    """What it made before another took over is its own result, and no longer anybody's."""
    harness = RecomputeHarness(processes=2, lock=lock, kinds=kinds, wait=10.0)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].pause(3 * 5.0)
    harness.source.version = 1
    second = harness.start_call(1)
    harness.advance(30.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert harness.stored() == 1
    assert harness.count("rejected") == 1
    assert harness.source.calls == 2


def test_who_gets_the_lock_looks_once_more():
    """A value that came between the first look and the lock is served, not made again."""
    harness = RecomputeHarness(processes=2, lock=True)
    first = harness.start_call(0)
    second = harness.start_call(1)
    harness.advance(ON_THE_WAY_BACK)  # both are being told that there is nothing
    harness.processes[1].pause(DELTA + 0.1)
    harness.advance(2.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 0)
    assert harness.source.calls == 1


def test_the_holder_of_the_lock_takes_the_stub_over():
    """Whoever lost the lock, and not yet its stub, can store nothing any more."""
    harness = RecomputeHarness(processes=2, lock=True)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.processes[0].pause(0.75 * DELTA)
    for node in harness.nodes:
        node.store.execute(Delete(harness.lock_key))
    harness.source.version = 1
    harness.advance(DELTA / 4)
    second = harness.start_call(1)
    harness.advance(5.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert harness.stored() == 1
    assert harness.count("rejected") == 1


@pytest.mark.parametrize("lock", MODES)
def test_an_invalidation_voids_what_is_being_made(lock):
    """The value is returned, not stored, and the next call computes."""
    harness = RecomputeHarness(processes=2, lock=lock)
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.source.version = 1
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    harness.advance(1.0, lambda: first.done)
    assert first.result == 0
    assert harness.stored() is None
    assert harness.count("rejected") == 1
    assert harness.call(1) == 1
    assert harness.stored() == 1


def test_who_calls_after_an_invalidation_does_not_wait_for_the_void_leader():
    """Its lock is in the way, but nothing that could be waited for."""
    harness = RecomputeHarness(processes=2, lock=True, wait=60.0)
    harness.source.delta = 20.0
    harness.start_call(0)
    harness.advance(1.0)
    harness.source.version, harness.source.delta = 1, DELTA
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    began = harness.now
    assert harness.call(1) == 1
    assert harness.now - began <= harness.processes[1].timeout + DELTA + 0.2
    assert harness.stored() == 1


@pytest.mark.parametrize("lock", MODES)
@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("before", ["nothing", "a stale value"])
def test_a_refresh_is_stored_over_what_was_begun_before_it(lock, kinds, before):
    """Whoever makes the value already has read an older state of the source."""
    harness = RecomputeHarness(processes=2, kinds=kinds, lock=lock, ttl=10.0, stale=30.0)
    if before != "nothing":
        harness.call(0)
        harness.advance(15.0)
    harness.source.delta = 2.0
    slow = harness.start_call(0)
    harness.advance(1.0)
    assert harness.source.busy == 1
    harness.source.version, harness.source.delta = 1, 3.0
    assert harness.run(cached_value.refresh(harness.request(1)), 1) == 1
    harness.advance(5.0)
    assert slow.done
    assert harness.stored() == 1
    assert harness.count("rejected") == 1


def test_a_refresh_leaves_the_old_value_to_others():
    """While nobody else makes it anew, they are served."""
    harness = RecomputeHarness(processes=2)
    harness.call(0)
    harness.source.version, harness.source.delta = 1, 5.0
    task = harness.processes[0].run(cached_value.refresh(harness.request()))
    harness.advance(1.0)
    assert harness.call(1) == 0
    harness.advance(10.0, lambda: task.done)
    assert (task.result, harness.stored()) == (1, 1)


@pytest.mark.parametrize("term", ["condition", "ttl"])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_term_that_raises_does_not_pile_up(lock, term):
    """A function of the result may fail as the source may: those who wait call side by side."""

    def fails(_result):
        raise ZeroDivisionError

    harness = RecomputeHarness(lock=lock, **{term: fails})
    began = harness.now
    tasks = [harness.start_call(place) for place in range(8)]
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ZeroDivisionError) for task in tasks)
    assert harness.now - began <= 2 * DELTA + 0.2


def test_a_stub_outlives_the_ticks_of_its_node():
    """A short lease for lock nodes that count well is a longer one on a node that does not."""
    harness = RecomputeHarness(processes=1, kinds=(True,), lock="shard")
    policy = CachePolicy(ttl=60.0, lock=LockPolicy(ttl=0.5))
    request = harness.request(0, policy)
    assert request.lease == 2.0
    assert RecomputeHarness(processes=1).request(harness.processes[0], policy).lease == 2.0
    fine = RecomputeHarness(processes=1)
    assert fine.request(fine.processes[0], policy).lease == 0.5


@pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_slow_leader_keeps_its_claim(lock, kinds):
    """Four times the ttl of the lock, and nobody else computes."""
    policy = LOCK if lock is True else lock
    harness = RecomputeHarness(processes=4, kinds=kinds, lock=policy, wait=60.0)
    harness.source.delta = 20.0
    assert harness.call_all(seconds=60.0) == [0] * 4
    assert harness.source.calls == 1
    assert harness.count("rejected") == 0


@pytest.mark.parametrize("lock", ["shard", True])
def test_errors_do_not_pile_up(lock):
    """When the leader's call raises, those who wait call at once, side by side, and no lock is left."""
    harness = RecomputeHarness(lock=lock)
    harness.source.error = ValueError("no such report")
    began = harness.now
    tasks = [harness.start_call(place) for place in range(8)]
    harness.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ValueError) for task in tasks)
    assert harness.source.calls == 8
    assert harness.now - began <= 2 * DELTA + 0.2
    harness.advance(0.1)
    assert [node.held(harness.lock_key) for node in harness.nodes] == [None] * 5


@pytest.mark.parametrize("lock", ["shard", True])
def test_what_is_not_kept_does_not_pile_up(lock):
    """The same holds for a result that `condition` refuses."""
    harness = RecomputeHarness(lock=lock, condition=lambda result: result > 0)
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert harness.stored() is None


def test_three_of_five_lock_nodes_down():
    """Each process computes once, and nobody waits for a lock that nobody can have."""
    harness = RecomputeHarness(lock=True)
    request = harness.request()
    for node in [node for node in harness.nodes if node is not request.member.backend][:3]:
        node.up = False
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls <= 8
    assert harness.now - began <= DELTA + 0.3
    assert harness.count("locks_unavailable") >= 1


def test_the_value_s_own_node_down():
    """Each process computes, at once and side by side."""
    harness = RecomputeHarness(lock=True)
    harness.shard.stopped = True
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.source.calls <= 8
    assert harness.now - began <= DELTA + 0.2


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("compute", 0), ("stale", 0), ("raise", RecomputeTimeoutError)]
)
def test_waiting_has_an_end(on_timeout, outcome):
    """After `wait` seconds the policy decides, not the leader."""
    harness = RecomputeHarness(processes=2, lock=True, wait=1.0, on_timeout=on_timeout)
    harness.source.delta = 5.0
    harness.start_call(0)
    harness.advance(0.1)
    began = harness.now
    task = harness.start_call(1)
    harness.advance(30.0, lambda: task.done)
    if outcome == 0:
        assert task.result == 0
        assert harness.now - began <= 1.0 + 5.0 + 0.1
    else:
        assert isinstance(task.error, outcome)
        assert harness.now - began <= 1.0 + 0.1
    assert harness.count("timeouts") == 1


@pytest.mark.parametrize("lock", ["shard", LockPolicy(ttl=5.0, max_hold=60.0)])
def test_a_leader_is_waited_for_so_long_and_no_longer(lock):
    """One that does not come to an end keeps its claim for `max_hold` seconds, then it runs out."""
    harness = RecomputeHarness(processes=2, lock=lock, wait=300.0)
    harness.source.delta = 200.0
    harness.start_call(0)
    harness.advance(0.1)
    harness.start_call(1)
    began = harness.now
    harness.advance(290.0, lambda: harness.source.calls == 2)
    assert 58.0 <= harness.now - began <= 60.0 + 5.0 + 0.2
    harness.advance(0.0)  # what was begun begins


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_leader_that_is_interrupted_leaves_nothing(lock):
    """Whoever comes next computes at once."""
    harness = RecomputeHarness(processes=2, lock=lock)
    harness.source.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        harness.call(0)
    assert harness.shard.held(harness.request().name) is None
    harness.source.error = None
    began = harness.now
    assert harness.call(1) == 0
    assert harness.now - began <= DELTA + A_FEW_ROUND_TRIPS


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_value_that_its_node_refuses_does_not_pile_up(lock):
    """Those who wait are told that it will not be stored, and the refusals are counted."""
    harness = RecomputeHarness(lock=lock)
    execute = harness.shard.store.execute

    def refuse(command):
        if isinstance(command, Cas) and not is_mark(command.payload):
            return NodeRefusedError("out of memory")
        return execute(command)

    harness.shard.store.execute = refuse
    began = harness.now
    assert harness.call_all() == [0] * 8
    assert harness.now - began <= 2 * DELTA + 0.2
    assert harness.count("cache_errors") == harness.source.calls
    assert not any(event.stored for event in harness.events.of(ComputeFinished))


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_node_that_takes_no_stub_is_counted(on_error):
    """The value is made all the same, unless the policy asks for the error."""
    harness = RecomputeHarness(processes=1, lock="shard", on_error=on_error)
    execute = harness.shard.store.execute
    refusal = NodeRefusedError("out of memory")
    harness.shard.store.execute = lambda command: (
        refusal if isinstance(command, GetOrStub) else execute(command)
    )
    if on_error == "raise":
        with pytest.raises(NodeRefusedError, match="out of memory"):
            harness.call(0)
    else:
        assert harness.call(0) == 0
    assert harness.count("cache_errors") == 1
    assert harness.source.calls == (on_error == "compute")


@pytest.mark.parametrize("steps", range(8))
def test_an_error_during_a_renewal_is_told_to_those_who_wait(steps):
    """The renewal has come to its end before the mark is left, or memcached would refuse that."""
    harness = RecomputeHarness(processes=1, kinds=MEMCACHED, lock="shard")
    harness.source.delta = harness.policy.locking.ttl / 3 - 0.001 + steps * ON_THE_WAY
    harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report"):
        harness.call(0)
    payload, _ = harness.shard.held(harness.request().name)
    assert is_abandoned(payload)


def test_what_is_neither_kept_nor_storable_is_given():
    """A result that `condition` refuses need not be one that any codec takes."""
    harness = RecomputeHarness(processes=1, lock="shard", condition=lambda _: False)
    result = harness.source.version = object()
    assert harness.call(0) == result
    assert harness.count("uncached") == 1


def test_only_errors_of_the_kinds_asked_for_are_kept():
    """Of another kind nothing is left but a mark that the making was given up."""
    harness = RecomputeHarness(processes=1, lock="shard", cache_errors=KeyError)
    for error, kept in ((ValueError("no such user"), False), (KeyError("no such user"), True)):
        harness.source.error = error
        with pytest.raises(type(error)):
            harness.call(0)
        payload, _ = harness.shard.held(harness.request().name)
        assert is_abandoned(payload) is not kept
        assert harness.events.of(ComputeFinished)[-1].stored is kept


def test_it_is_told_whether_a_value_was_stored():
    """A value that an invalidation has voided was not."""
    harness = RecomputeHarness(processes=2, lock="shard")
    first = harness.start_call(0)
    harness.advance(DELTA / 2)
    harness.run(cached_value.invalidate(harness.request(1)), 1)
    harness.advance(1.0, lambda: first.done)
    harness.call(1)
    assert [event.stored for event in harness.events.of(ComputeFinished)] == [False, True]


def test_the_one_who_called_has_the_very_error():
    """With the trace of where it was raised."""
    harness = RecomputeHarness(processes=1)
    error = harness.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report") as raised:
        harness.call(0)
    assert raised.value is error


def test_a_kept_error_is_a_hit():
    """It is what was asked for, and was there."""
    harness = RecomputeHarness(processes=1, cache_errors=ValueError, error_ttl=10.0)
    harness.source.error = ValueError("no such report")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such report"):
            harness.call(0)
    assert harness.source.calls == 1
    assert (harness.count("misses"), harness.count("hits")) == (1, 1)


def test_no_two_errors_are_the_same():
    """An error that is stored again is another one, for nodes that tell versions by their bytes."""
    request = RecomputeHarness(processes=1).request(Process(World(), [SimulatedNode(World())]))
    payload = request.cluster.payloads.encode(request.name, ["builtins:ValueError", []])
    assert request.seal_error(payload) != request.seal_error(payload)


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_what_cannot_be_read_is_an_error_if_both_say_so(on_error):
    """The client with its `on_error`, and the function's policy with its own."""
    harness = RecomputeHarness(processes=1, on_error=on_error)
    harness.processes[0].cluster.raises = True
    request = harness.request()
    harness.run(request.ask(Set(request.name, (127 << SHIFT, b"of no codec"), 60.0)))
    if on_error == "raise":
        with pytest.raises(DecodeError):
            harness.call(0)
    else:
        assert harness.call(0) == 0


def test_a_value_without_its_tags_is_none():
    """One that was stored without any is not that of a function that has some."""
    harness = RecomputeHarness(processes=1)
    process = harness.processes[0]
    assert harness.run(cached_value.put(harness.request(process), 7)) is True
    assert harness.run(cached_value.peek(harness.request(process))) == 7
    tagged = harness.request(process, tags=("t",))
    assert harness.run(cached_value.peek(tagged)) is NOT_MADE
    assert harness.run(cached_value.get(tagged)) == 0


def test_what_is_put_is_kept_on_the_same_terms():
    """Not what the policy refuses, and not while the version of a tag is unknown."""
    harness = RecomputeHarness(processes=1, condition=lambda result: result > 0)
    process = harness.processes[0]
    assert harness.run(cached_value.put(harness.request(process), 0)) is False
    assert harness.stored() is None
    tagged = harness.request(process, tags=("t0", "t1", "t2", "t3"))
    assert harness.run(cached_value.put(tagged, 1)) is True
    held = harness.shard.held(tagged.name)
    owners = [process.cluster.route(tag)[1] for tag in tagged.tags]
    other = next(member for member in owners if member is not tagged.member)
    other.backend.up = False
    assert harness.run(cached_value.put(tagged, 2)) is False
    assert harness.shard.held(tagged.name) == held


class TestWaiting:
    """What one does who finds that another makes the value."""

    def test_it_is_counted_and_told(self):
        """Who waited, for how long, and that a call was spared by it."""
        harness = RecomputeHarness(processes=2, lock="shard")
        assert harness.call_all() == [0, 0]
        assert harness.count("lock_waits") == 1
        assert DELTA <= harness.count("wait_seconds") <= DELTA + LONGEST_PAUSE
        (event,) = harness.events.of(StampedePrevented)
        assert (event.key, event.how) == (harness.KEY.encode(), "waited")
        assert DELTA <= event.seconds <= DELTA + LONGEST_PAUSE

    def test_whoever_makes_something_itself_does_not_wait(self):
        """For it could be what the other waits for."""
        harness = RecomputeHarness(processes=2, lock="shard")
        harness.processes[1].cluster.io.single_flight.nested = lambda: True
        harness.start_call(0)
        harness.advance(0.05)
        began = harness.now
        assert harness.call(1) == 0
        assert harness.now - began <= DELTA + A_FEW_ROUND_TRIPS
        assert harness.count("lock_waits") == 0

    def test_the_holder_of_the_lock_has_time_to_begin(self):
        """Who waits for one that has not left its stub yet does not ask for the lock again and again."""
        harness = RecomputeHarness(processes=2, lock=True)
        harness.start_call(0)
        harness.advance(AFTER_MAJORITY)  # the nodes have agreed, and are telling it so
        harness.processes[0].pause(0.07)
        takes = harness.record_commands(Acquire)
        assert harness.call(1) == 0
        assert len(takes) == 1
        assert harness.source.calls == 1

    def test_a_stub_that_has_gone_is_missed_at_once(self):
        """When there was one, and there is none, its owner has let go: somebody else makes the value."""
        harness = RecomputeHarness(processes=2, lock="shard")
        claim = harness.run(begin(harness.request()))
        began = harness.now
        harness.start_call(1)
        harness.advance(AFTER_FIRST_LOOK)  # it has looked for it once
        harness.run(claim.release())
        harness.advance(1.0, lambda: harness.source.calls == 1)
        assert harness.now - began <= 0.06
        harness.advance(0.0)  # what was begun begins

    def test_a_node_that_fails_meanwhile_ends_it(self):
        """What it had to tell will not be told: the value is made at once."""
        harness = RecomputeHarness(processes=2, lock="shard")
        harness.start_call(0)
        task = harness.start_call(1)
        harness.advance(0.05)
        harness.shard.up = False
        began = harness.now
        harness.advance(10.0, lambda: task.done)
        assert task.result == 0
        assert harness.now - began <= LONGEST_PAUSE + DELTA + A_FEW_ROUND_TRIPS
        assert harness.source.calls == 2

    def test_what_was_given_up_before_is_not_waited_for(self):
        """A mark found at first says that it is everybody's own to make, whoever has the lock."""
        harness = RecomputeHarness(processes=3, lock=LOCK)
        claim = harness.run(begin(harness.request()))
        harness.run(claim.abandon(0.0))
        other = harness.processes[2]
        assert (
            harness.run(redlock.attempt(other.cluster, harness.KEY, LOCK, VALUE_LOCKS), 2)
            is not None
        )
        began = harness.now
        assert harness.call(1) == 0
        assert harness.now - began <= DELTA + 0.01
        assert harness.count("lock_waits") == 0

    def test_its_end_is_one_for_all_whom_it_waits_for(self):
        """Who is always second waits for `wait` seconds in all, and not for each who was faster."""
        harness = RecomputeHarness(processes=1, lock="shard", wait=1.0)
        execute = harness.shard.store.execute

        def faster(command):
            if isinstance(command, GetOrStub):
                execute(GetOrStub(command.key, b"another's", 0.3))
            return execute(command)

        harness.shard.store.execute = faster
        began = harness.now
        assert harness.call(0) == 0
        assert 1.0 <= harness.now - began - DELTA <= 1.02
        assert harness.count("timeouts") == 1

    def test_an_old_value_ends_it(self):
        """With `on_timeout="stale"` one that is kept as a last resort is served then."""
        harness = RecomputeHarness(
            processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, wait=1.0, on_timeout="stale"
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.version = 1
        harness.source.delta = 5.0
        harness.start_call(0)
        harness.advance(0.1)
        began = harness.now
        assert harness.call(1) == 0
        assert 1.0 <= harness.now - began <= 1.02
        assert harness.source.calls == 2

    def test_an_old_value_that_rests_is_not_waited_for(self):
        """When making it anew has just failed, who comes next has the old one at once."""
        harness = RecomputeHarness(
            processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.error = ValueError("the source is down")
        assert harness.call(0) == 0
        assert harness.call(1) == 0
        assert harness.source.calls == 2
        assert harness.count("lock_waits") == 0

    def test_a_lock_that_is_lost_meanwhile_is_counted(self):
        """The value is made all the same, and stored if nobody else was faster."""
        harness = RecomputeHarness(processes=1, lock=LOCK)
        harness.source.delta = 10.0
        task = harness.start_call(0)
        harness.advance(0.1)
        for node in harness.nodes:  # as when all were restarted and another was faster
            node.store.execute(Set(harness.lock_key, (256, b"another's"), 60.0))
        harness.advance(20.0, lambda: task.done)
        assert (task.result, harness.stored()) == (0, 0)
        assert harness.count("locks_lost") == 1


class TestClaims:
    """What one who makes a value has on its node, and what it leaves there."""

    def begin(self, harness, place=0):
        """Have a process begin, as one does that finds nothing."""
        return harness.run(begin(harness.request(place)), place)

    def held(self, harness):
        """Give what the node has in the value's place."""
        return harness.shard.held(harness.request().name)

    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    def test_another_s_stub_is_left_alone(self, kinds):
        """Who did not begin first may be faster, but neither prolongs nor removes what it met."""
        harness = RecomputeHarness(processes=2, kinds=kinds, lock="shard")
        first, second = self.begin(harness, 0), self.begin(harness, 1)
        assert (first.leads, second.leads) == (True, False)
        before = self.held(harness)
        assert harness.run(second.renew(60.0), 1) is False
        harness.run(second.abandon(0.0), 1)
        harness.run(second.release(), 1)
        assert self.held(harness) == before

    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    def test_a_stub_is_renewed_while_it_is_there(self, kinds):
        """Its token goes with it, and a node that keeps silent for once ends nothing."""
        harness = RecomputeHarness(processes=1, kinds=kinds, lock="shard")
        claim = self.begin(harness)
        for _ in range(3):
            assert harness.run(claim.renew(60.0)) is True
        harness.shard.up = False
        assert harness.run(claim.renew(60.0)) is True
        harness.shard.up = True
        harness.advance(10.0)
        assert harness.run(claim.renew(60.0)) is True
        request = harness.request()
        assert harness.run(request.ask(Cas(request.name, (0, b"made"), claim.token, 60.0))) is True
        assert harness.run(claim.renew(60.0)) is False
        harness.run(claim.release())
        assert self.held(harness)[0] == (0, b"made")

    def test_a_mark_of_what_was_given_up_is_soon_gone(self):
        """It is there for those who wait now."""
        harness = RecomputeHarness(processes=1, lock="shard")
        claim = self.begin(harness)
        harness.run(claim.abandon(60.0))
        assert is_abandoned(self.held(harness)[0])
        harness.advance(2.1)
        assert self.held(harness) is None

    @pytest.fixture(params=[REDIS, MEMCACHED], ids=["redis", "memcached"])
    def grown(self, request):
        """Give a harness with a stale value, and the claim of the process that makes it anew."""
        harness = RecomputeHarness(processes=2, kinds=request.param, ttl=10.0, stale=60.0)
        harness.call(0)
        harness.advance(15.0)
        request = harness.request()
        stored = open_stored(harness.shard.held(request.name)[0])
        return harness, request, harness.run(claim_refresh(request, stored))

    def test_one_is_elected_at_a_time(self, grown):
        """Nobody else, until it is done."""
        harness, request, claim = grown
        stored = open_stored(harness.shard.held(request.name)[0])
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is None
        harness.run(claim.release())
        assert harness.run(claim_refresh(harness.request(1), stored), 1) is not None

    def test_who_is_elected_stays_so(self, grown):
        """While it is renewed, also if its node keeps silent for once; and not over another's head."""
        harness, request, claim = grown
        for _ in range(3):
            assert harness.run(claim.renew(4.0)) is True
            harness.advance(2.0)
        harness.shard.up = False
        assert harness.run(claim.renew(4.0)) is True
        harness.shard.up = True
        harness.advance(1.0)
        assert harness.run(claim.renew(4.0)) is True
        harness.run(request.ask(Set(request.refresh_key, (0, b"another"), 60.0)))
        assert harness.run(claim.renew(4.0)) is False
        harness.run(claim.release())
        assert harness.shard.held(request.refresh_key)[0] == (0, b"another")

    def test_what_was_given_up_rests(self, grown):
        """For as long as is said; when that is for no time, the next may try at once."""
        harness, request, claim = grown
        harness.run(claim.abandon(5.0))
        assert harness.shard.held(request.refresh_key)[0] == BACKING_OFF
        harness.advance(5.1)
        assert harness.shard.held(request.refresh_key) is None
        claim = harness.run(
            claim_refresh(request, open_stored(harness.shard.held(request.name)[0]))
        )
        harness.run(claim.abandon(0.0))
        assert harness.shard.held(request.refresh_key) is None


class TestAges:
    """What happens to a value as it grows old."""

    def refresh_key(self, harness):
        """Give what the node has beside the value."""
        return harness.shard.held(harness.request().refresh_key)

    @pytest.mark.parametrize("invalidated", [False, True])
    def test_a_refresh_leaves_nothing_beside_the_value(self, invalidated):
        """Be its value stored or not: when it has ended the next may begin."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(DELTA / 2)
        assert self.refresh_key(harness) is not None
        if invalidated:
            harness.run(cached_value.invalidate(harness.request(1)), 1)
        harness.advance(DELTA)
        assert self.refresh_key(harness) is None
        assert harness.count("rejected") == invalidated

    def test_who_is_elected_too_late_makes_nothing_anew(self):
        """A value that another has made since it was found stale is left as it is, and the place free."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        late = harness.start_call(1)
        harness.advance(ON_THE_WAY_BACK)  # it is being told of the old value
        harness.processes[1].pause(1.0)
        harness.call(0)
        harness.advance(1.5)
        assert late.done
        assert harness.source.calls == 2
        assert self.refresh_key(harness) is None

    def test_a_last_resort_has_an_end(self):
        """One that grows too old while it is being made anew is not served in an error's place."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0, stale_if_error=20.0)
        harness.call(0)
        harness.advance(28.0)
        harness.source.error = ValueError("the source is down")
        harness.source.delta = 5.0
        with pytest.raises(ValueError, match="is down"):
            harness.call(0)
        assert harness.count("swallowed") == 0

    @pytest.mark.parametrize("lock", MODES)
    def test_stale_is_served_while_one_makes_it_anew(self, lock):
        """Everybody has the old value at once, and one call makes the new one."""
        harness = RecomputeHarness(lock=lock, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.source.version = 1
        began = harness.now
        assert harness.call_all() == [0] * 8
        assert harness.now - began <= 0.01
        harness.advance(1.0)
        assert harness.source.calls == 2
        assert harness.call_all() == [1] * 8

    def test_beyond_stale_it_is_gone(self):
        """Then callers wait, as for any missing value."""
        harness = RecomputeHarness(lock=True, ttl=10.0, stale=5.0)
        harness.call(0)
        harness.advance(16.0)
        harness.source.version = 1
        assert harness.call_all() == [1] * 8
        assert harness.source.calls == 2

    def test_an_invalidation_voids_a_refresh(self):
        """What is made anew beside the old value is not stored once that is invalidated."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(DELTA / 2)
        assert harness.source.calls == 2
        harness.source.version = 1
        harness.run(cached_value.invalidate(harness.request(1)), 1)
        harness.advance(1.0)
        assert harness.stored() is None
        assert harness.call(1) == 1

    @pytest.mark.parametrize("lock", MODES)
    @pytest.mark.parametrize("kinds", [REDIS, MEMCACHED])
    @pytest.mark.parametrize("terms", [{"stale": 1.0}, {"early": 1.0}])
    def test_a_slow_refresh_outlasts_the_old_value(self, lock, kinds, terms):
        """Nobody begins beside it when the old value is too old to be served, and it is stored."""
        harness = RecomputeHarness(
            processes=4, kinds=kinds, lock=lock, ttl=10.0, wait=60.0, seed=3, **terms
        )
        harness.source.delta = 8.0
        harness.call(0)
        tasks = []
        while harness.source.calls < 2:
            harness.advance(0.1)
            tasks.append(harness.start_call(0))
        harness.source.version = 1
        for _ in range(80):
            harness.advance(0.1)
            tasks += [harness.start_call(1), harness.start_call(2)]
        harness.advance(30.0, lambda: all(task.done for task in tasks))
        harness.advance(9.0, lambda: harness.source.busy == 0)
        assert harness.source.most_busy == 1
        assert harness.count("rejected") == 0

    @pytest.mark.parametrize("on_timeout", ["compute", "stale", "raise"])
    def test_a_last_resort_that_is_invalidated_is_none(self, on_timeout):
        """Who waits for it to be made anew goes on as if it had never been."""
        harness = RecomputeHarness(
            processes=2, lock=True, ttl=10.0, stale_if_error=60.0, wait=30.0, on_timeout=on_timeout
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.delta = 20.0
        harness.start_call(0)
        harness.advance(1.0)
        waits = harness.start_call(1)
        harness.advance(1.0)
        harness.source.version, harness.source.delta = 1, DELTA
        harness.run(cached_value.invalidate(harness.request(1)), 1)
        began = harness.now
        harness.advance(60.0, lambda: waits.done)
        assert (waits.result, harness.stored()) == (1, 1)
        assert harness.now - began <= DELTA + 0.5

    def test_an_invalidation_ends_the_rest_after_a_failure(self):
        """What is made after it may be made anew as soon as it is stale."""
        harness = RecomputeHarness(processes=1, ttl=1.0, stale=60.0, error_backoff=50.0)
        harness.call_all()
        harness.advance(2.0)
        harness.source.error = ValueError("the source is down")
        harness.call_all()
        harness.advance(1.0)
        harness.source.error = None
        harness.run(cached_value.invalidate(harness.request()))
        harness.call_all()
        harness.advance(2.0)
        harness.source.version = 1
        harness.call_all()
        harness.advance(1.0)
        assert harness.stored() == 1

    def test_a_failing_refresh_is_not_tried_again_at_once(self):
        """The old value is served, and the source left alone for `error_backoff` seconds."""
        harness = RecomputeHarness(ttl=10.0, stale=60.0, error_backoff=5.0)
        harness.call(0)
        harness.advance(15.0)
        harness.source.error = ValueError("the source is down")
        for _ in range(40):
            harness.call_all()
            harness.advance(0.1)
        assert harness.source.calls == 2
        harness.advance(2.0)
        harness.source.error = None
        harness.source.version = 1
        harness.call_all()
        harness.advance(1.0)
        assert harness.source.calls == 3
        assert harness.call_all() == [1] * 8

    @pytest.mark.parametrize("lock", MODES)
    def test_the_last_resort(self, lock):
        """Beyond `stale` a caller computes, and only when that fails the old value is served."""
        harness = RecomputeHarness(
            lock=lock, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0
        )
        harness.call(0)
        harness.advance(20.0)
        harness.source.version = 1
        harness.source.error = ValueError("the source is down")
        assert harness.call_all() == [0] * 8
        assert harness.source.calls == 2
        assert harness.call_all() == [0] * 8
        assert harness.source.calls == 2
        harness.advance(6.0)
        harness.source.error = None
        assert harness.call_all() == [1] * 8
        assert harness.source.calls == 3

    def test_a_last_resort_that_cannot_be_read_is_none(self):
        """The function's error is raised then, not that of the codec."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=5.0, stale_if_error=60.0)
        request = harness.request()
        garbage = seal((127 << SHIFT, b"of no codec"), harness.now, 0.0, 10.0, ())
        harness.run(request.ask(Set(request.name, (ENVELOPE_FLAGS, pack(garbage)), 100.0)))
        harness.advance(20.0)
        harness.source.error = ValueError("the source is down")
        with pytest.raises(ValueError, match="is down"):
            harness.call(0)

    def test_early_recomputes_come_before_the_end_and_once(self):
        """With an elected refresher one call is made ahead of the end of each life."""
        harness = RecomputeHarness(processes=4, ttl=10.0, early=1.0, seed=5)
        harness.source.delta = 1.0
        harness.call(0)
        for _ in range(400):
            harness.call_all(seconds=5.0)
            harness.advance(0.05)
        lives = harness.now - 1000.0
        assert harness.count("misses") <= 4  # of the first call alone, or nearly so
        assert math.floor(lives / 10.0) <= harness.source.calls <= lives / 5.0 + 1
        assert harness.count("early") == harness.source.calls - harness.count("misses") > 0

    def test_who_was_not_elected_does_not_stand_again_at_once(self):
        """The node of a value is not asked for it by every call that serves an old one."""
        harness = RecomputeHarness(processes=2, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        harness.call(0)
        harness.advance(0.01)
        candidates = harness.record_commands(Set, nodes=[harness.shard])
        for _ in range(4):
            assert harness.call(1) == 0
        harness.advance(0.01)
        assert len(candidates) == 1
        harness.advance(LOST_PAUSE)
        harness.call(1)
        harness.advance(0.01)
        assert len(candidates) == 2

    def test_who_was_elected_may_be_so_again(self):
        """A process alone makes each value anew, however soon it has grown old."""
        harness = RecomputeHarness(processes=1, ttl=1.0, stale=30.0)
        harness.call(0)
        for calls in range(2, 6):
            harness.advance(1.3)
            harness.call(0)
            harness.advance(DELTA + 0.1)
            assert harness.source.calls == calls

    def test_when_all_are_busy_the_next_call_makes_it_anew(self):
        """What could not be done beside a call is left to the next, and not for the time of a lock."""
        harness = RecomputeHarness(processes=1, ttl=10.0, stale=30.0)
        harness.call(0)
        harness.advance(15.0)
        io = harness.processes[0].cluster.io
        offer, io.try_spawn = io.try_spawn, lambda *_: False
        assert harness.call(0) == 0
        io.try_spawn = offer
        assert harness.call(0) == 0
        harness.advance(1.0)
        assert harness.source.calls == 2


class Values(RuleBasedStateMachine):
    """Processes that compute, pause and invalidate: nothing older than an invalidation is stored."""

    @initialize(
        kinds=st.lists(st.booleans(), min_size=5, max_size=5),
        lock=st.sampled_from([False, "shard", LOCK]),
        stale=st.sampled_from([0.0, 3.0]),
        seed=st.integers(0, 99),
    )
    def begin(self, kinds, lock, stale, seed):
        """Make the harness."""
        self.harness = RecomputeHarness(
            processes=3, kinds=kinds, seed=seed, lock=lock, ttl=5.0, stale=stale, wait=2.0
        )
        self.tasks = [None] * 3
        self.voided = -1  # all versions up to this were invalidated, and that was acknowledged
        self.harness.world.watch = self.look

    def look(self):
        """Check that nothing invalidated is stored."""
        stored = self.harness.stored()
        assert stored is None or stored > self.voided, "stored over a later invalidation"

    def idle(self, place):
        """Say whether a process has nothing to do."""
        task = self.tasks[place]
        return task is None or task.done

    @rule(place=st.integers(0, 2))
    def request(self, place):
        """Begin a call."""
        if self.idle(place):
            self.tasks[place] = self.harness.start_call(place)

    @rule(place=st.integers(0, 2))
    def refresh(self, place):
        """Begin to make it anew, whatever is stored."""
        if self.idle(place):
            process = self.harness.processes[place]
            self.tasks[place] = process.run(cached_value.refresh(self.harness.request(process)))

    @rule(place=st.integers(0, 2))
    def invalidate(self, place):
        """Change the source, and have the value invalidated."""
        if not self.idle(place) or self.harness.processes[place].paused_until > self.harness.now:
            return
        version = self.harness.source.version
        self.harness.source.version += 1

        async def acknowledged():
            await cached_value.invalidate(self.harness.request(self.harness.processes[place]))
            self.voided = max(self.voided, version)

        self.tasks[place] = self.harness.processes[place].run(acknowledged())

    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.05, 0.5, 4.0, 7.0]))
    def pause(self, place, seconds):
        """Stop a process, at whatever it is doing."""
        self.harness.processes[place].pause(seconds)

    @rule(seconds=st.sampled_from([ON_THE_WAY, ON_THE_WAY_BACK, 0.01, 0.1, 0.21, 1.0, 3.0, 6.0]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.harness.advance(seconds)

    def teardown(self):
        """Every call has come to its end: none hangs, and none has failed."""
        if not hasattr(self, "harness"):
            return
        self.harness.world.finish(self.harness.nodes, self.harness.processes)
        for task in self.tasks:
            assert task is None or task.done
            assert task is None or task.error is None


TestValues = Values.TestCase
TestValues.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
