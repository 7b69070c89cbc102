"""What a process does while another recomputes the value it wants."""

from __future__ import annotations

import pytest

from operations.cached_harness import DELTA, RecomputeHarness
from operations.harness import A_FEW_ROUND_TRIPS, AFTER_FIRST_LOOK, AFTER_MAJORITY, LONGEST_PAUSE
from shardcache.core.commands import Acquire, Cas, GetOrStub, Set
from shardcache.core.events import ComputeFinished, StampedePrevented
from shardcache.core.leases import LockPolicy
from shardcache.core.payloads import is_mark
from shardcache.core.reserved import VALUE_LOCKS
from shardcache.errors import NodeRefusedError, RecomputeTimeoutError
from shardcache.operations.locks import redlock
from shardcache.operations.recompute.recompute import begin

LOCK = LockPolicy(ttl=4.0)


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
