"""Computed values in a world of virtual time: who computes, who waits, and what is stored."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from operations.simulation import Process, SimulatedNode, World
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Acquire, Cas, Delete, GetOrStub, Set
from shardcache.core.events import Observer
from shardcache.core.leases import LockPolicy, lock_key
from shardcache.core.reserved_keys import VALUE_LOCKS
from shardcache.core.values.envelopes import pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, SHIFT, is_abandoned, is_mark
from shardcache.core.values.freshness import open_stored, seal
from shardcache.errors import DecodeError, NodeRefusedError, RecomputeTimeoutError
from shardcache.operations.locks import redlock
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.claims import BACKING_OFF
from shardcache.operations.recompute.outcomes import NOT_MADE
from shardcache.operations.recompute.protection import LOST_PAUSE
from shardcache.operations.recompute.recompute import begin, claim_refresh
from shardcache.operations.recompute.request import Request

KEY = "report"
DELTA = 0.2  # seconds that the source takes
LOCK = LockPolicy(ttl=4.0)
MODES = [False, "shard", True]


class Source:
    """What is slow: gives its version as it is when asked, after a while."""

    def __init__(self, world, delta=DELTA):
        self.world = world
        self.delta = delta
        self.version = 0
        self.calls = 0
        self.busy = 0
        self.most_busy = 0
        self.error = None

    def for_process(self, process):
        """Give the function that a process calls."""

        async def make():
            self.calls += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            version = self.version
            await process.cluster.io.sleep(self.delta)
            self.busy -= 1
            if self.error is not None:
                raise self.error
            return version

        return make


class Diary(Observer):
    """Writes down what was computed."""

    def __init__(self):
        self.recompute = []
        self.prevented = []

    def compute_finished(self, event):
        """Write it down."""
        self.recompute.append(event)

    def stampede_prevented(self, event):
        """Write down what was not computed."""
        self.prevented.append(event)


class Scene:
    """Five nodes, some processes, one key, one source."""

    def __init__(self, processes=8, kinds=(False,) * 5, seed=0, **terms):
        self.world = World(seed)
        self.nodes = [SimulatedNode(self.world, whole_seconds=kind) for kind in kinds]
        self.diary = Diary()
        self.processes = [
            Process(self.world, self.nodes, observers=[self.diary]) for _ in range(processes)
        ]
        self.source = Source(self.world)
        self.policy = CachePolicy(**{"ttl": 60.0, "jitter": 0.0, **terms})

    def request(self, process, policy=None, tags=()):
        """Give one call of a process."""
        cluster = process.cluster
        factory = self.source.for_process(process)
        terms = policy or self.policy
        protection = process.protection
        return Request(cluster, KEY, factory, terms, protection, protection.direct, tags)

    def start(self, place=0, policy=None):
        """Begin a call of a process."""
        process = self.processes[place]
        return process.run(cached_value.get(self.request(process, policy)))

    def run(self, *places, seconds=30.0):
        """Have processes call at once; give their values."""
        tasks = [self.start(place) for place in places or range(len(self.processes))]
        self.world.advance(seconds, lambda: all(task.done for task in tasks))
        assert all(task.done for task in tasks)
        self.world.advance(0.0)  # what they have begun beside themselves begins
        for task in tasks:
            if task.error is not None:
                raise task.error
        return [task.result for task in tasks]

    def do(self, work, place=0):
        """Run an operation to its end."""
        task = self.processes[place].run(work)
        self.world.advance(30.0, lambda: task.done)
        self.world.advance(0.0)  # as above
        if task.error is not None:
            raise task.error
        return task.result

    @property
    def shard(self):
        """Give the node that has the key."""
        return self.request(self.processes[0]).member.backend

    def stored(self):
        """Give the version that is stored, or `None`."""
        name = self.request(self.processes[0]).name
        held = self.shard.held(name)
        if held is None or is_mark(held[0]):
            return None
        stored = open_stored(held[0])
        return self.processes[0].cluster.payloads.decode(name, stored.payload)

    def count(self, what):
        """Give a counter, summed over all processes."""
        return sum(process.protection.counters.counts[what] for process in self.processes)


@pytest.mark.parametrize(("lock", "calls"), [(False, 8), ("local", 8), ("shard", 1), (True, 1)])
@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
def test_a_cold_key(lock, calls, kinds):
    """Who computes is as the policy says, and who waits has the value soon after."""
    scene = Scene(kinds=kinds, lock=lock)
    began = scene.world.now
    assert scene.run() == [0] * 8
    assert scene.source.calls == calls
    assert scene.world.now - began <= DELTA + 0.125
    assert scene.run() == [0] * 8  # and now they are hits
    assert scene.source.calls == calls
    assert scene.count("hits") == 8


def test_a_hit_is_one_command():
    """Nothing but a `get` is sent for it, whatever the policy."""
    scene = Scene(lock=True, stale=30.0, early=1.0)
    scene.run(0)
    commands = []
    for node in scene.nodes:
        execute = node.store.execute
        node.store.execute = lambda command, do=execute: commands.append(command) or do(command)
    scene.run(1)
    assert [type(command).__name__ for command in commands] == ["Get"]


def test_the_leader_needs_thirteen_commands():
    """A miss with five lock nodes: get, five locks, begin, commit, five releases."""
    scene = Scene(lock=True)
    commands = []
    for node in scene.nodes:
        execute = node.store.execute
        node.store.execute = lambda command, do=execute: commands.append(command) or do(command)
    scene.run(0)
    names = [type(command).__name__ for command in commands]
    assert names == ["Get", *["Acquire"] * 5, "GetOrStub", "Cas", *["CompareAndDelete"] * 5]


@pytest.mark.parametrize("lock", ["shard", LOCK])
def test_a_killed_leader_is_replaced(lock):
    """When it has died half-way, another begins as soon as its lease has run out."""
    scene = Scene(processes=4, lock=lock)
    scene.start(0)
    scene.world.advance(DELTA / 2)
    scene.processes[0].dead = True
    began = scene.world.now
    others = [scene.start(place) for place in (1, 2, 3)]
    ttl = LOCK.ttl if lock is LOCK else 5.0
    scene.world.advance(20.0, lambda: scene.source.calls == 2)
    assert scene.world.now - began <= ttl + 0.125
    scene.world.advance(20.0, lambda: all(task.done for task in others))
    assert [task.result for task in others] == [0, 0, 0]
    assert scene.source.calls == 2


@pytest.mark.parametrize("lock", ["shard", LOCK])
@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
def test_a_stopped_leader_stores_nothing_late(lock, kinds):
    """What it made before another took over is its own result, and no longer anybody's."""
    scene = Scene(processes=2, lock=lock, kinds=kinds, wait=10.0)
    first = scene.start(0)
    scene.world.advance(DELTA / 2)
    scene.processes[0].pause(3 * 5.0)
    scene.source.version = 1
    second = scene.start(1)
    scene.world.advance(30.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert scene.stored() == 1
    assert scene.count("rejected") == 1
    assert scene.source.calls == 2


def test_who_gets_the_lock_looks_once_more():
    """A value that came between the first look and the lock is served, not made again."""
    scene = Scene(processes=2, lock=True)
    first = scene.start(0)
    second = scene.start(1)
    scene.world.advance(0.0015)  # both are being told that there is nothing
    scene.processes[1].pause(DELTA + 0.1)
    scene.world.advance(2.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 0)
    assert scene.source.calls == 1


def test_the_holder_of_the_lock_takes_the_stub_over():
    """Whoever lost the lock, and not yet its stub, can store nothing any more."""
    scene = Scene(processes=2, lock=True)
    first = scene.start(0)
    scene.world.advance(DELTA / 2)
    scene.processes[0].pause(0.75 * DELTA)
    for node in scene.nodes:
        node.store.execute(Delete(lock_key(KEY.encode(), VALUE_LOCKS)))
    scene.source.version = 1
    scene.world.advance(DELTA / 4)
    second = scene.start(1)
    scene.world.advance(5.0, lambda: first.done and second.done)
    assert (first.result, second.result) == (0, 1)
    assert scene.stored() == 1
    assert scene.count("rejected") == 1


@pytest.mark.parametrize("lock", MODES)
def test_an_invalidation_voids_what_is_being_made(lock):
    """The value is returned, not stored, and the next call computes."""
    scene = Scene(processes=2, lock=lock)
    first = scene.start(0)
    scene.world.advance(DELTA / 2)
    scene.source.version = 1
    scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
    scene.world.advance(1.0, lambda: first.done)
    assert first.result == 0
    assert scene.stored() is None
    assert scene.count("rejected") == 1
    assert scene.run(1) == [1]
    assert scene.stored() == 1


def test_who_calls_after_an_invalidation_does_not_wait_for_the_void_leader():
    """Its lock is in the way, but nothing that could be waited for."""
    scene = Scene(processes=2, lock=True, wait=60.0)
    scene.source.delta = 20.0
    scene.start(0)
    scene.world.advance(1.0)
    scene.source.version, scene.source.delta = 1, DELTA
    scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
    began = scene.world.now
    assert scene.run(1) == [1]
    assert scene.world.now - began <= scene.processes[1].timeout + DELTA + 0.2
    assert scene.stored() == 1


@pytest.mark.parametrize("lock", MODES)
@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
@pytest.mark.parametrize("before", ["nothing", "a stale value"])
def test_a_refresh_is_stored_over_what_was_begun_before_it(lock, kinds, before):
    """Whoever makes the value already has read an older state of the source."""
    scene = Scene(processes=2, kinds=kinds, lock=lock, ttl=10.0, stale=30.0)
    if before != "nothing":
        scene.run(0)
        scene.world.advance(15.0)
    scene.source.delta = 2.0
    slow = scene.start(0)
    scene.world.advance(1.0)
    assert scene.source.busy == 1
    scene.source.version, scene.source.delta = 1, 3.0
    assert scene.do(cached_value.refresh(scene.request(scene.processes[1])), 1) == 1
    scene.world.advance(5.0)
    assert slow.done
    assert scene.stored() == 1
    assert scene.count("rejected") == 1


def test_a_refresh_leaves_the_old_value_to_others():
    """While nobody else makes it anew, they are served."""
    scene = Scene(processes=2)
    scene.run(0)
    scene.source.version, scene.source.delta = 1, 5.0
    task = scene.processes[0].run(cached_value.refresh(scene.request(scene.processes[0])))
    scene.world.advance(1.0)
    assert scene.run(1) == [0]
    scene.world.advance(10.0, lambda: task.done)
    assert (task.result, scene.stored()) == (1, 1)


@pytest.mark.parametrize("term", ["condition", "ttl"])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_term_that_raises_does_not_pile_up(lock, term):
    """A function of the result may fail as the source may: those who wait call side by side."""

    def fails(_result):
        raise ZeroDivisionError

    scene = Scene(lock=lock, **{term: fails})
    began = scene.world.now
    tasks = [scene.start(place) for place in range(8)]
    scene.world.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ZeroDivisionError) for task in tasks)
    assert scene.world.now - began <= 2 * DELTA + 0.2


def test_a_stub_outlives_the_ticks_of_its_node():
    """A short lease for lock nodes that count well is a longer one on a node that does not."""
    scene = Scene(processes=1, kinds=(True,), lock="shard")
    policy = CachePolicy(ttl=60.0, lock=LockPolicy(ttl=0.5))
    request = scene.request(scene.processes[0], policy)
    assert request.lease == 2.0
    assert Scene(processes=1).request(scene.processes[0], policy).lease == 2.0
    fine = Scene(processes=1)
    assert fine.request(fine.processes[0], policy).lease == 0.5


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
@pytest.mark.parametrize("lock", ["shard", True])
def test_a_slow_leader_keeps_its_claim(lock, kinds):
    """Four times the ttl of the lock, and nobody else computes."""
    policy = LOCK if lock is True else lock
    scene = Scene(processes=4, kinds=kinds, lock=policy, wait=60.0)
    scene.source.delta = 20.0
    assert scene.run(seconds=60.0) == [0] * 4
    assert scene.source.calls == 1
    assert scene.count("rejected") == 0


@pytest.mark.parametrize("lock", ["shard", True])
def test_errors_do_not_pile_up(lock):
    """When the leader's call raises, those who wait call at once, side by side, and no lock is left."""
    scene = Scene(lock=lock)
    scene.source.error = ValueError("no such report")
    began = scene.world.now
    tasks = [scene.start(place) for place in range(8)]
    scene.world.advance(30.0, lambda: all(task.done for task in tasks))
    assert all(isinstance(task.error, ValueError) for task in tasks)
    assert scene.source.calls == 8
    assert scene.world.now - began <= 2 * DELTA + 0.2
    scene.world.advance(0.1)
    assert [node.held(lock_key(KEY.encode(), VALUE_LOCKS)) for node in scene.nodes] == [None] * 5


@pytest.mark.parametrize("lock", ["shard", True])
def test_what_is_not_kept_does_not_pile_up(lock):
    """The same holds for a result that `condition` refuses."""
    scene = Scene(lock=lock, condition=lambda result: result > 0)
    began = scene.world.now
    assert scene.run() == [0] * 8
    assert scene.world.now - began <= 2 * DELTA + 0.2
    assert scene.stored() is None


def test_three_of_five_lock_nodes_down():
    """Each process computes once, and nobody waits for a lock that nobody can have."""
    scene = Scene(lock=True)
    request = scene.request(scene.processes[0])
    for node in [node for node in scene.nodes if node is not request.member.backend][:3]:
        node.up = False
    began = scene.world.now
    assert scene.run() == [0] * 8
    assert scene.source.calls <= 8
    assert scene.world.now - began <= DELTA + 0.3
    assert scene.count("locks_unavailable") >= 1


def test_the_value_s_own_node_down():
    """Each process computes, at once and side by side."""
    scene = Scene(lock=True)
    scene.shard.stopped = True
    began = scene.world.now
    assert scene.run() == [0] * 8
    assert scene.source.calls <= 8
    assert scene.world.now - began <= DELTA + 0.2


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [("compute", 0), ("stale", 0), ("raise", RecomputeTimeoutError)]
)
def test_waiting_has_an_end(on_timeout, outcome):
    """After `wait` seconds the policy decides, not the leader."""
    scene = Scene(processes=2, lock=True, wait=1.0, on_timeout=on_timeout)
    scene.source.delta = 5.0
    scene.start(0)
    scene.world.advance(0.1)
    began = scene.world.now
    task = scene.start(1)
    scene.world.advance(30.0, lambda: task.done)
    if outcome == 0:
        assert task.result == 0
        assert scene.world.now - began <= 1.0 + 5.0 + 0.1
    else:
        assert isinstance(task.error, outcome)
        assert scene.world.now - began <= 1.0 + 0.1
    assert scene.count("timeouts") == 1


@pytest.mark.parametrize("lock", ["shard", LockPolicy(ttl=5.0, max_hold=60.0)])
def test_a_leader_is_waited_for_so_long_and_no_longer(lock):
    """One that does not come to an end keeps its claim for `max_hold` seconds, then it runs out."""
    scene = Scene(processes=2, lock=lock, wait=300.0)
    scene.source.delta = 200.0
    scene.start(0)
    scene.world.advance(0.1)
    scene.start(1)
    began = scene.world.now
    scene.world.advance(290.0, lambda: scene.source.calls == 2)
    assert 58.0 <= scene.world.now - began <= 60.0 + 5.0 + 0.2
    scene.world.advance(0.0)  # what was begun begins


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_leader_that_is_interrupted_leaves_nothing(lock):
    """Whoever comes next computes at once."""
    scene = Scene(processes=2, lock=lock)
    scene.source.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        scene.run(0)
    assert scene.shard.held(scene.request(scene.processes[0]).name) is None
    scene.source.error = None
    began = scene.world.now
    assert scene.run(1) == [0]
    assert scene.world.now - began <= DELTA + 0.02


@pytest.mark.parametrize("lock", ["shard", True])
def test_a_value_that_its_node_refuses_does_not_pile_up(lock):
    """Those who wait are told that it will not be stored, and the refusals are counted."""
    scene = Scene(lock=lock)
    execute = scene.shard.store.execute

    def refuse(command):
        if isinstance(command, Cas) and not is_mark(command.payload):
            return NodeRefusedError("out of memory")
        return execute(command)

    scene.shard.store.execute = refuse
    began = scene.world.now
    assert scene.run() == [0] * 8
    assert scene.world.now - began <= 2 * DELTA + 0.2
    assert scene.count("cache_errors") == scene.source.calls
    assert not any(event.stored for event in scene.diary.recompute)


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_node_that_takes_no_stub_is_counted(on_error):
    """The value is made all the same, unless the policy asks for the error."""
    scene = Scene(processes=1, lock="shard", on_error=on_error)
    execute = scene.shard.store.execute
    refusal = NodeRefusedError("out of memory")
    scene.shard.store.execute = lambda command: (
        refusal if isinstance(command, GetOrStub) else execute(command)
    )
    if on_error == "raise":
        with pytest.raises(NodeRefusedError, match="out of memory"):
            scene.run(0)
    else:
        assert scene.run(0) == [0]
    assert scene.count("cache_errors") == 1
    assert scene.source.calls == (on_error == "compute")


@pytest.mark.parametrize("steps", range(8))
def test_an_error_during_a_renewal_is_told_to_those_who_wait(steps):
    """The renewal has come to its end before the mark is left, or memcached would refuse that."""
    scene = Scene(processes=1, kinds=(True,) * 5, lock="shard")
    scene.source.delta = scene.policy.locking.ttl / 3 - 0.001 + steps * 0.0005
    scene.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report"):
        scene.run(0)
    payload, _ = scene.shard.held(scene.request(scene.processes[0]).name)
    assert is_abandoned(payload)


def test_what_is_neither_kept_nor_storable_is_given():
    """A result that `condition` refuses need not be one that any codec takes."""
    scene = Scene(processes=1, lock="shard", condition=lambda _: False)
    result = scene.source.version = object()
    assert scene.run(0) == [result]
    assert scene.count("uncached") == 1


def test_only_errors_of_the_kinds_asked_for_are_kept():
    """Of another kind nothing is left but a mark that the making was given up."""
    scene = Scene(processes=1, lock="shard", cache_errors=KeyError)
    for error, kept in ((ValueError("no such user"), False), (KeyError("no such user"), True)):
        scene.source.error = error
        with pytest.raises(type(error)):
            scene.run(0)
        payload, _ = scene.shard.held(scene.request(scene.processes[0]).name)
        assert is_abandoned(payload) is not kept
        assert scene.diary.recompute[-1].stored is kept


def test_it_is_told_whether_a_value_was_stored():
    """A value that an invalidation has voided was not."""
    scene = Scene(processes=2, lock="shard")
    first = scene.start(0)
    scene.world.advance(DELTA / 2)
    scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
    scene.world.advance(1.0, lambda: first.done)
    scene.run(1)
    assert [event.stored for event in scene.diary.recompute] == [False, True]


def test_the_one_who_called_has_the_very_error():
    """With the trace of where it was raised."""
    scene = Scene(processes=1)
    error = scene.source.error = ValueError("no such report")
    with pytest.raises(ValueError, match="no such report") as raised:
        scene.run(0)
    assert raised.value is error


def test_a_kept_error_is_a_hit():
    """It is what was asked for, and was there."""
    scene = Scene(processes=1, cache_errors=ValueError, error_ttl=10.0)
    scene.source.error = ValueError("no such report")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such report"):
            scene.run(0)
    assert scene.source.calls == 1
    assert (scene.count("misses"), scene.count("hits")) == (1, 1)


def test_no_two_errors_are_the_same():
    """An error that is stored again is another one, for nodes that tell versions by their bytes."""
    request = Scene(processes=1).request(Process(World(), [SimulatedNode(World())]))
    payload = request.cluster.payloads.encode(request.name, ["builtins:ValueError", []])
    assert request.seal_error(payload) != request.seal_error(payload)


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_what_cannot_be_read_is_an_error_if_both_say_so(on_error):
    """The client with its `on_error`, and the function's policy with its own."""
    scene = Scene(processes=1, on_error=on_error)
    scene.processes[0].cluster.raises = True
    request = scene.request(scene.processes[0])
    scene.do(request.ask(Set(request.name, (127 << SHIFT, b"of no codec"), 60.0)))
    if on_error == "raise":
        with pytest.raises(DecodeError):
            scene.run(0)
    else:
        assert scene.run(0) == [0]


def test_a_value_without_its_tags_is_none():
    """One that was stored without any is not that of a function that has some."""
    scene = Scene(processes=1)
    process = scene.processes[0]
    assert scene.do(cached_value.put(scene.request(process), 7)) is True
    assert scene.do(cached_value.peek(scene.request(process))) == 7
    tagged = scene.request(process, tags=("t",))
    assert scene.do(cached_value.peek(tagged)) is NOT_MADE
    assert scene.do(cached_value.get(tagged)) == 0


def test_what_is_put_is_kept_on_the_same_terms():
    """Not what the policy refuses, and not while the version of a tag is unknown."""
    scene = Scene(processes=1, condition=lambda result: result > 0)
    process = scene.processes[0]
    assert scene.do(cached_value.put(scene.request(process), 0)) is False
    assert scene.stored() is None
    tagged = scene.request(process, tags=("t0", "t1", "t2", "t3"))
    assert scene.do(cached_value.put(tagged, 1)) is True
    held = scene.shard.held(tagged.name)
    owners = [process.cluster.route(tag)[1] for tag in tagged.tags]
    other = next(member for member in owners if member is not tagged.member)
    other.backend.up = False
    assert scene.do(cached_value.put(tagged, 2)) is False
    assert scene.shard.held(tagged.name) == held


class TestWaiting:
    """What one does who finds that another makes the value."""

    def test_it_is_counted_and_told(self):
        """Who waited, for how long, and that a call was spared by it."""
        scene = Scene(processes=2, lock="shard")
        assert scene.run() == [0, 0]
        assert scene.count("lock_waits") == 1
        assert DELTA <= scene.count("wait_seconds") <= DELTA + 0.125
        (event,) = scene.diary.prevented
        assert (event.key, event.how) == (KEY.encode(), "waited")
        assert DELTA <= event.seconds <= DELTA + 0.125

    def test_whoever_makes_something_itself_does_not_wait(self):
        """For it could be what the other waits for."""
        scene = Scene(processes=2, lock="shard")
        scene.processes[1].cluster.io.single_flight.nested = lambda: True
        scene.start(0)
        scene.world.advance(0.05)
        began = scene.world.now
        assert scene.run(1) == [0]
        assert scene.world.now - began <= DELTA + 0.02
        assert scene.count("lock_waits") == 0

    def test_the_holder_of_the_lock_has_time_to_begin(self):
        """Who waits for one that has not left its stub yet does not ask for the lock again and again."""
        scene = Scene(processes=2, lock=True)
        scene.start(0)
        scene.world.advance(0.0055)  # the nodes have agreed, and are telling it so
        scene.processes[0].pause(0.07)
        takes = []
        for node in scene.nodes:
            execute = node.store.execute
            node.store.execute = lambda command, do=execute: (
                (takes.append(command) if isinstance(command, Acquire) else None) or do(command)
            )
        assert scene.run(1) == [0]
        assert len(takes) == 1
        assert scene.source.calls == 1

    def test_a_stub_that_has_gone_is_missed_at_once(self):
        """When there was one, and there is none, its owner has let go: somebody else makes the value."""
        scene = Scene(processes=2, lock="shard")
        claim = scene.do(begin(scene.request(scene.processes[0])))
        began = scene.world.now
        scene.start(1)
        scene.world.advance(0.016)  # it has looked for it once
        scene.do(claim.release())
        scene.world.advance(1.0, lambda: scene.source.calls == 1)
        assert scene.world.now - began <= 0.06
        scene.world.advance(0.0)  # what was begun begins

    def test_a_node_that_fails_meanwhile_ends_it(self):
        """What it had to tell will not be told: the value is made at once."""
        scene = Scene(processes=2, lock="shard")
        scene.start(0)
        task = scene.start(1)
        scene.world.advance(0.05)
        scene.shard.up = False
        began = scene.world.now
        scene.world.advance(10.0, lambda: task.done)
        assert task.result == 0
        assert scene.world.now - began <= 0.125 + DELTA + 0.02
        assert scene.source.calls == 2

    def test_what_was_given_up_before_is_not_waited_for(self):
        """A mark found at first says that it is everybody's own to make, whoever has the lock."""
        scene = Scene(processes=3, lock=LOCK)
        claim = scene.do(begin(scene.request(scene.processes[0])))
        scene.do(claim.abandon(0.0))
        other = scene.processes[2]
        assert scene.do(redlock.attempt(other.cluster, KEY, LOCK, VALUE_LOCKS), 2) is not None
        began = scene.world.now
        assert scene.run(1) == [0]
        assert scene.world.now - began <= DELTA + 0.01
        assert scene.count("lock_waits") == 0

    def test_its_end_is_one_for_all_whom_it_waits_for(self):
        """Who is always second waits for `wait` seconds in all, and not for each who was faster."""
        scene = Scene(processes=1, lock="shard", wait=1.0)
        execute = scene.shard.store.execute

        def faster(command):
            if isinstance(command, GetOrStub):
                execute(GetOrStub(command.key, b"another's", 0.3))
            return execute(command)

        scene.shard.store.execute = faster
        began = scene.world.now
        assert scene.run(0) == [0]
        assert 1.0 <= scene.world.now - began - DELTA <= 1.02
        assert scene.count("timeouts") == 1

    def test_an_old_value_ends_it(self):
        """With `on_timeout="stale"` one that is kept as a last resort is served then."""
        scene = Scene(
            processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, wait=1.0, on_timeout="stale"
        )
        scene.run(0)
        scene.world.advance(20.0)
        scene.source.version = 1
        scene.source.delta = 5.0
        scene.start(0)
        scene.world.advance(0.1)
        began = scene.world.now
        assert scene.run(1) == [0]
        assert 1.0 <= scene.world.now - began <= 1.02
        assert scene.source.calls == 2

    def test_an_old_value_that_rests_is_not_waited_for(self):
        """When making it anew has just failed, who comes next has the old one at once."""
        scene = Scene(processes=2, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0)
        scene.run(0)
        scene.world.advance(20.0)
        scene.source.error = ValueError("the source is down")
        assert scene.run(0) == [0]
        assert scene.run(1) == [0]
        assert scene.source.calls == 2
        assert scene.count("lock_waits") == 0

    def test_a_lock_that_is_lost_meanwhile_is_counted(self):
        """The value is made all the same, and stored if nobody else was faster."""
        scene = Scene(processes=1, lock=LOCK)
        scene.source.delta = 10.0
        task = scene.start(0)
        scene.world.advance(0.1)
        for node in scene.nodes:  # as when all were restarted and another was faster
            node.store.execute(Set(lock_key(KEY.encode(), VALUE_LOCKS), (256, b"another's"), 60.0))
        scene.world.advance(20.0, lambda: task.done)
        assert (task.result, scene.stored()) == (0, 0)
        assert scene.count("locks_lost") == 1


class TestClaims:
    """What one who makes a value has on its node, and what it leaves there."""

    def begin(self, scene, place=0):
        """Have a process begin, as one does that finds nothing."""
        return scene.do(begin(scene.request(scene.processes[place])), place)

    def held(self, scene):
        """Give what the node has in the value's place."""
        return scene.shard.held(scene.request(scene.processes[0]).name)

    @pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
    def test_another_s_stub_is_left_alone(self, kinds):
        """Who did not begin first may be faster, but neither prolongs nor removes what it met."""
        scene = Scene(processes=2, kinds=kinds, lock="shard")
        first, second = self.begin(scene, 0), self.begin(scene, 1)
        assert (first.leads, second.leads) == (True, False)
        before = self.held(scene)
        assert scene.do(second.renew(60.0), 1) is False
        scene.do(second.abandon(0.0), 1)
        scene.do(second.release(), 1)
        assert self.held(scene) == before

    @pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
    def test_a_stub_is_renewed_while_it_is_there(self, kinds):
        """Its token goes with it, and a node that keeps silent for once ends nothing."""
        scene = Scene(processes=1, kinds=kinds, lock="shard")
        claim = self.begin(scene)
        for _ in range(3):
            assert scene.do(claim.renew(60.0)) is True
        scene.shard.up = False
        assert scene.do(claim.renew(60.0)) is True
        scene.shard.up = True
        scene.world.advance(10.0)
        assert scene.do(claim.renew(60.0)) is True
        request = scene.request(scene.processes[0])
        assert scene.do(request.ask(Cas(request.name, (0, b"made"), claim.token, 60.0))) is True
        assert scene.do(claim.renew(60.0)) is False
        scene.do(claim.release())
        assert self.held(scene)[0] == (0, b"made")

    def test_a_mark_of_what_was_given_up_is_soon_gone(self):
        """It is there for those who wait now."""
        scene = Scene(processes=1, lock="shard")
        claim = self.begin(scene)
        scene.do(claim.abandon(60.0))
        assert is_abandoned(self.held(scene)[0])
        scene.world.advance(2.1)
        assert self.held(scene) is None

    @pytest.fixture(params=[(False,) * 5, (True,) * 5], ids=["redis", "memcached"])
    def grown(self, request):
        """Give a scene with a stale value, and the claim of the process that makes it anew."""
        scene = Scene(processes=2, kinds=request.param, ttl=10.0, stale=60.0)
        scene.run(0)
        scene.world.advance(15.0)
        request = scene.request(scene.processes[0])
        stored = open_stored(scene.shard.held(request.name)[0])
        return scene, request, scene.do(claim_refresh(request, stored))

    def test_one_is_elected_at_a_time(self, grown):
        """Nobody else, until it is done."""
        scene, request, claim = grown
        stored = open_stored(scene.shard.held(request.name)[0])
        assert scene.do(claim_refresh(scene.request(scene.processes[1]), stored), 1) is None
        scene.do(claim.release())
        assert scene.do(claim_refresh(scene.request(scene.processes[1]), stored), 1) is not None

    def test_who_is_elected_stays_so(self, grown):
        """While it is renewed, also if its node keeps silent for once; and not over another's head."""
        scene, request, claim = grown
        for _ in range(3):
            assert scene.do(claim.renew(4.0)) is True
            scene.world.advance(2.0)
        scene.shard.up = False
        assert scene.do(claim.renew(4.0)) is True
        scene.shard.up = True
        scene.world.advance(1.0)
        assert scene.do(claim.renew(4.0)) is True
        scene.do(request.ask(Set(request.refresh_key, (0, b"another"), 60.0)))
        assert scene.do(claim.renew(4.0)) is False
        scene.do(claim.release())
        assert scene.shard.held(request.refresh_key)[0] == (0, b"another")

    def test_what_was_given_up_rests(self, grown):
        """For as long as is said; when that is for no time, the next may try at once."""
        scene, request, claim = grown
        scene.do(claim.abandon(5.0))
        assert scene.shard.held(request.refresh_key)[0] == BACKING_OFF
        scene.world.advance(5.1)
        assert scene.shard.held(request.refresh_key) is None
        claim = scene.do(claim_refresh(request, open_stored(scene.shard.held(request.name)[0])))
        scene.do(claim.abandon(0.0))
        assert scene.shard.held(request.refresh_key) is None


class TestAges:
    """What happens to a value as it grows old."""

    def refresh_key(self, scene):
        """Give what the node has beside the value."""
        return scene.shard.held(scene.request(scene.processes[0]).refresh_key)

    @pytest.mark.parametrize("invalidated", [False, True])
    def test_a_refresh_leaves_nothing_beside_the_value(self, invalidated):
        """Be its value stored or not: when it has ended the next may begin."""
        scene = Scene(processes=2, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        scene.run(0)
        scene.world.advance(DELTA / 2)
        assert self.refresh_key(scene) is not None
        if invalidated:
            scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
        scene.world.advance(DELTA)
        assert self.refresh_key(scene) is None
        assert scene.count("rejected") == invalidated

    def test_who_is_elected_too_late_makes_nothing_anew(self):
        """A value that another has made since it was found stale is left as it is, and the place free."""
        scene = Scene(processes=2, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        late = scene.start(1)
        scene.world.advance(0.0015)  # it is being told of the old value
        scene.processes[1].pause(1.0)
        scene.run(0)
        scene.world.advance(1.5)
        assert late.done
        assert scene.source.calls == 2
        assert self.refresh_key(scene) is None

    def test_a_last_resort_has_an_end(self):
        """One that grows too old while it is being made anew is not served in an error's place."""
        scene = Scene(processes=1, ttl=10.0, stale=5.0, stale_if_error=20.0)
        scene.run(0)
        scene.world.advance(28.0)
        scene.source.error = ValueError("the source is down")
        scene.source.delta = 5.0
        with pytest.raises(ValueError, match="is down"):
            scene.run(0)
        assert scene.count("swallowed") == 0

    @pytest.mark.parametrize("lock", MODES)
    def test_stale_is_served_while_one_makes_it_anew(self, lock):
        """Everybody has the old value at once, and one call makes the new one."""
        scene = Scene(lock=lock, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        scene.source.version = 1
        began = scene.world.now
        assert scene.run() == [0] * 8
        assert scene.world.now - began <= 0.01
        scene.world.advance(1.0)
        assert scene.source.calls == 2
        assert scene.run() == [1] * 8

    def test_beyond_stale_it_is_gone(self):
        """Then callers wait, as for any missing value."""
        scene = Scene(lock=True, ttl=10.0, stale=5.0)
        scene.run(0)
        scene.world.advance(16.0)
        scene.source.version = 1
        assert scene.run() == [1] * 8
        assert scene.source.calls == 2

    def test_an_invalidation_voids_a_refresh(self):
        """What is made anew beside the old value is not stored once that is invalidated."""
        scene = Scene(processes=2, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        scene.run(0)
        scene.world.advance(DELTA / 2)
        assert scene.source.calls == 2
        scene.source.version = 1
        scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
        scene.world.advance(1.0)
        assert scene.stored() is None
        assert scene.run(1) == [1]

    @pytest.mark.parametrize("lock", MODES)
    @pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
    @pytest.mark.parametrize("terms", [{"stale": 1.0}, {"early": 1.0}])
    def test_a_slow_refresh_outlasts_the_old_value(self, lock, kinds, terms):
        """Nobody begins beside it when the old value is too old to be served, and it is stored."""
        scene = Scene(processes=4, kinds=kinds, lock=lock, ttl=10.0, wait=60.0, seed=3, **terms)
        scene.source.delta = 8.0
        scene.run(0)
        tasks = []
        while scene.source.calls < 2:
            scene.world.advance(0.1)
            tasks.append(scene.start(0))
        scene.source.version = 1
        for _ in range(80):
            scene.world.advance(0.1)
            tasks += [scene.start(1), scene.start(2)]
        scene.world.advance(30.0, lambda: all(task.done for task in tasks))
        scene.world.advance(9.0, lambda: scene.source.busy == 0)
        assert scene.source.most_busy == 1
        assert scene.count("rejected") == 0

    @pytest.mark.parametrize("on_timeout", ["compute", "stale", "raise"])
    def test_a_last_resort_that_is_invalidated_is_none(self, on_timeout):
        """Who waits for it to be made anew goes on as if it had never been."""
        scene = Scene(
            processes=2, lock=True, ttl=10.0, stale_if_error=60.0, wait=30.0, on_timeout=on_timeout
        )
        scene.run(0)
        scene.world.advance(20.0)
        scene.source.delta = 20.0
        scene.start(0)
        scene.world.advance(1.0)
        waits = scene.start(1)
        scene.world.advance(1.0)
        scene.source.version, scene.source.delta = 1, DELTA
        scene.do(cached_value.invalidate(scene.request(scene.processes[1])), 1)
        began = scene.world.now
        scene.world.advance(60.0, lambda: waits.done)
        assert (waits.result, scene.stored()) == (1, 1)
        assert scene.world.now - began <= DELTA + 0.5

    def test_an_invalidation_ends_the_rest_after_a_failure(self):
        """What is made after it may be made anew as soon as it is stale."""
        scene = Scene(processes=1, ttl=1.0, stale=60.0, error_backoff=50.0)
        scene.run()
        scene.world.advance(2.0)
        scene.source.error = ValueError("the source is down")
        scene.run()
        scene.world.advance(1.0)
        scene.source.error = None
        scene.do(cached_value.invalidate(scene.request(scene.processes[0])))
        scene.run()
        scene.world.advance(2.0)
        scene.source.version = 1
        scene.run()
        scene.world.advance(1.0)
        assert scene.stored() == 1

    def test_a_failing_refresh_is_not_tried_again_at_once(self):
        """The old value is served, and the source left alone for `error_backoff` seconds."""
        scene = Scene(ttl=10.0, stale=60.0, error_backoff=5.0)
        scene.run(0)
        scene.world.advance(15.0)
        scene.source.error = ValueError("the source is down")
        for _ in range(40):
            scene.run()
            scene.world.advance(0.1)
        assert scene.source.calls == 2
        scene.world.advance(2.0)
        scene.source.error = None
        scene.source.version = 1
        scene.run()
        scene.world.advance(1.0)
        assert scene.source.calls == 3
        assert scene.run() == [1] * 8

    @pytest.mark.parametrize("lock", MODES)
    def test_the_last_resort(self, lock):
        """Beyond `stale` a caller computes, and only when that fails the old value is served."""
        scene = Scene(lock=lock, ttl=10.0, stale=5.0, stale_if_error=60.0, error_backoff=5.0)
        scene.run(0)
        scene.world.advance(20.0)
        scene.source.version = 1
        scene.source.error = ValueError("the source is down")
        assert scene.run() == [0] * 8
        assert scene.source.calls == 2
        assert scene.run() == [0] * 8
        assert scene.source.calls == 2
        scene.world.advance(6.0)
        scene.source.error = None
        assert scene.run() == [1] * 8
        assert scene.source.calls == 3

    def test_a_last_resort_that_cannot_be_read_is_none(self):
        """The function's error is raised then, not that of the codec."""
        scene = Scene(processes=1, ttl=10.0, stale=5.0, stale_if_error=60.0)
        request = scene.request(scene.processes[0])
        garbage = seal((127 << SHIFT, b"of no codec"), scene.world.now, 0.0, 10.0, ())
        scene.do(request.ask(Set(request.name, (ENVELOPE_FLAGS, pack(garbage)), 100.0)))
        scene.world.advance(20.0)
        scene.source.error = ValueError("the source is down")
        with pytest.raises(ValueError, match="is down"):
            scene.run(0)

    def test_early_recomputes_come_before_the_end_and_once(self):
        """With an elected refresher one call is made ahead of the end of each life."""
        scene = Scene(processes=4, ttl=10.0, early=1.0, seed=5)
        scene.source.delta = 1.0
        scene.run(0)
        for _ in range(400):
            scene.run(seconds=5.0)
            scene.world.advance(0.05)
        lives = scene.world.now - 1000.0
        assert scene.count("misses") <= 4  # of the first call alone, or nearly so
        assert math.floor(lives / 10.0) <= scene.source.calls <= lives / 5.0 + 1
        assert scene.count("early") == scene.source.calls - scene.count("misses") > 0

    def commands(self, scene, kind):
        """Note the commands of a kind that the value's node is asked from now on."""
        noted = []
        execute = scene.shard.store.execute
        scene.shard.store.execute = lambda command: (
            (noted.append(command) if isinstance(command, kind) else None) or execute(command)
        )
        return noted

    def test_who_was_not_elected_does_not_stand_again_at_once(self):
        """The node of a value is not asked for it by every call that serves an old one."""
        scene = Scene(processes=2, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        scene.run(0)
        scene.world.advance(0.01)
        candidates = self.commands(scene, Set)
        for _ in range(4):
            assert scene.run(1) == [0]
        scene.world.advance(0.01)
        assert len(candidates) == 1
        scene.world.advance(LOST_PAUSE)
        scene.run(1)
        scene.world.advance(0.01)
        assert len(candidates) == 2

    def test_who_was_elected_may_be_so_again(self):
        """A process alone makes each value anew, however soon it has grown old."""
        scene = Scene(processes=1, ttl=1.0, stale=30.0)
        scene.run(0)
        for calls in range(2, 6):
            scene.world.advance(1.3)
            scene.run(0)
            scene.world.advance(DELTA + 0.1)
            assert scene.source.calls == calls

    def test_when_all_are_busy_the_next_call_makes_it_anew(self):
        """What could not be done beside a call is left to the next, and not for the time of a lock."""
        scene = Scene(processes=1, ttl=10.0, stale=30.0)
        scene.run(0)
        scene.world.advance(15.0)
        io = scene.processes[0].cluster.io
        offer, io.try_spawn = io.try_spawn, lambda *_: False
        assert scene.run(0) == [0]
        io.try_spawn = offer
        assert scene.run(0) == [0]
        scene.world.advance(1.0)
        assert scene.source.calls == 2


class Values(RuleBasedStateMachine):
    """Processes that compute, pause and invalidate: nothing older than an invalidation is stored."""

    @initialize(
        kinds=st.lists(st.booleans(), min_size=5, max_size=5),
        lock=st.sampled_from([False, "shard", LOCK]),
        stale=st.sampled_from([0.0, 3.0]),
        seed=st.integers(0, 99),
    )
    def begin(self, kinds, lock, stale, seed):
        """Make the scene."""
        self.scene = Scene(
            processes=3, kinds=kinds, seed=seed, lock=lock, ttl=5.0, stale=stale, wait=2.0
        )
        self.tasks = [None] * 3
        self.voided = -1  # all versions up to this were invalidated, and that was acknowledged
        self.scene.world.watch = self.look

    def look(self):
        """Check that nothing invalidated is stored."""
        stored = self.scene.stored()
        assert stored is None or stored > self.voided, "stored over a later invalidation"

    def idle(self, place):
        """Say whether a process has nothing to do."""
        task = self.tasks[place]
        return task is None or task.done

    @rule(place=st.integers(0, 2))
    def request(self, place):
        """Begin a call."""
        if self.idle(place):
            self.tasks[place] = self.scene.start(place)

    @rule(place=st.integers(0, 2))
    def refresh(self, place):
        """Begin to make it anew, whatever is stored."""
        if self.idle(place):
            process = self.scene.processes[place]
            self.tasks[place] = process.run(cached_value.refresh(self.scene.request(process)))

    @rule(place=st.integers(0, 2))
    def invalidate(self, place):
        """Change the source, and have the value invalidated."""
        if not self.idle(place) or self.scene.processes[place].paused_until > self.scene.world.now:
            return
        version = self.scene.source.version
        self.scene.source.version += 1

        async def acknowledged():
            await cached_value.invalidate(self.scene.request(self.scene.processes[place]))
            self.voided = max(self.voided, version)

        self.tasks[place] = self.scene.processes[place].run(acknowledged())

    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.05, 0.5, 4.0, 7.0]))
    def pause(self, place, seconds):
        """Stop a process, at whatever it is doing."""
        self.scene.processes[place].pause(seconds)

    @rule(seconds=st.sampled_from([0.0005, 0.0015, 0.01, 0.1, 0.21, 1.0, 3.0, 6.0]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.scene.world.advance(seconds)

    def teardown(self):
        """Every call has come to its end: none hangs, and none has failed."""
        if not hasattr(self, "scene"):
            return
        self.scene.world.finish(self.scene.nodes, self.scene.processes)
        for task in self.tasks:
            assert task is None or task.done
            assert task is None or task.error is None


TestValues = Values.TestCase
TestValues.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
