"""A lock over many nodes, in a world of virtual time where nodes fail and processes pause."""

from __future__ import annotations

import math

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import Acquire, CompareAndExpire, Gets
from shardcache.core.events import Observer
from shardcache.core.leases import LockPolicy, lock_key
from shardcache.errors import LockTimeout, LockUnavailable, NodeUnavailableError, UnsupportedError
from shardcache.operations.cluster.leftovers import remove_later
from shardcache.operations.locks import redlock
from shardcache.operations.locks.compare import compared

KINDS = [(False,) * 5, (True,) * 5, (True, False, True, False, True), (True,), (True,) * 3]
NAME = "report"
KEY = lock_key(NAME.encode())
TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
SHORT = LockPolicy(ttl=1.0, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


def make_world(kinds=(False,) * 5, processes=3, seed=0):
    """Give a world with a node for each of `kinds` (does it count whole seconds?), and processes."""
    world = World(seed)
    nodes = [SimulatedNode(world, whole_seconds=kind) for kind in kinds]
    return world, nodes, [Process(world, nodes) for _ in range(processes)]


def attempted(world, process, policy=POLICY):
    """Try the lock once; give what came of it."""
    return finished(world, process, redlock.attempt(process.cluster, NAME, policy))


def finished(world, process, work):
    """Run an operation to its end; give what came of it."""
    task = process.run(work)
    world.advance(5.0, lambda: task.done)
    world.advance(0.0)  # what it has begun beside itself begins
    if task.error is not None:
        raise task.error
    return task.result


def ranked(process):
    """Give the nodes in the lock's order of preference."""
    members = [
        process.cluster.members[node.name] for node in redlock.lock_nodes(process.cluster, NAME)
    ]
    return [member.backend for member in members]


def asked(nodes):
    """Give how many writes each node has seen."""
    return [node.store._writes for node in nodes]


class Events:
    """Does something after so many events of a world."""

    def __init__(self, count, act):
        self.left = count
        self.act = act

    def __call__(self):
        """Count one more."""
        self.left -= 1
        if self.left == 0:
            self.act()


class Diary(Observer):
    """Writes down which locks were lost."""

    def __init__(self):
        self.lost = []

    def lease_lost(self, event):
        """Write it down."""
        self.lost.append(event)


class Locks(RuleBasedStateMachine):
    """Three processes, five nodes, and all that may befall them without the promise being broken.

    With one of the switches on, something befalls them that Redlock does not promise to survive.
    """

    forgets = False  # a node that restarts has lost what it had, and is asked at once
    fast = 1.0  # the rate of the nodes' clocks
    lingers = False  # a process acts on a lease it looked at before it was paused
    calm = False  # little else befalls anybody, so that what is looked for is found soon
    ordered = False  # no command overtakes another, so that locks nobody has are soon gone

    @initialize(kinds=st.lists(st.booleans(), min_size=5, max_size=5), seed=st.integers(0, 99))
    def begin(self, kinds, seed):
        """Make the world."""
        self.world, self.nodes, self.processes = make_world(kinds, seed=seed)
        for node in self.nodes:
            node.rate = self.fast
            node.ordered = self.ordered
        self.tasks = [None] * 3
        self.holds = [[] for _ in range(3)]
        self.dead = set()
        self.acting = [0.0] * 3
        self.world.watch = self.look

    def look(self):
        """Take in what came of attempts, and check what must be so at every moment."""
        for place, task in enumerate(self.tasks):
            if task is not None and task.done:
                self.tasks[place] = None
                if isinstance(task.error, Exception) and not isinstance(
                    task.error, LockUnavailable
                ):
                    raise task.error
                if isinstance(task.result, redlock.HeldLock):
                    self.holds[place].append(task.result)
        valid = [hold for held in self.holds for hold in held if hold.remaining() > 0]
        assert len(valid) <= 1, f"{len(valid)} valid leases at once"
        acting = [until for until in self.acting if until > self.world.now]
        assert len(acting) <= 1, "two act on the lock at once"
        assert self.world.touched == []
        for held in self.holds:
            for hold in held:
                if hold.remaining() == 0:
                    self.dead.add(hold)
                else:
                    assert hold not in self.dead, "an expired lease came to life again"

    @rule(place=st.integers(0, 2), policy=st.sampled_from([POLICY, RENEWED, SHORT]))
    def attempt(self, place, policy):
        """Begin to take the lock."""
        if self.tasks[place] is None:
            process = self.processes[place]
            policy = POLICY if self.calm and not self.ordered else policy
            self.tasks[place] = process.run(redlock.attempt(process.cluster, NAME, policy))

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.0005, 0.0015, 0.0025, 0.01, 0.06]))
    def cancel(self, place, seconds):
        """Cancel whatever a process is doing, in a moment, wherever it is waiting then."""
        self.world.advance(seconds)
        if self.tasks[place] is not None:
            self.tasks[place].cancel()

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 4), what=st.sampled_from(["", "commands", "replies"]))
    def lose(self, place, what):
        """Break a node's connections before a command arrives, or behind it; or no more."""
        self.nodes[place].loses = what

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 2), ttl=st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0]))
    def extend(self, place, ttl):
        """Begin to prolong what was taken, be it valid or not."""
        if self.holds[place] and self.tasks[place] is None:
            hold = self.holds[place][-1]
            self.tasks[place] = self.processes[place].run(hold.extend(ttl))

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 2))
    def release(self, place):
        """Begin to give back what was taken, be it valid or not."""
        if self.holds[place] and self.tasks[place] is None:
            hold = self.holds[place][-1]
            self.tasks[place] = self.processes[place].run(hold.release())

    @precondition(lambda self: not self.calm or self.lingers)
    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.5, 1.0, 6.0]))
    def act(self, place, seconds):
        """Do what the lock guards, for as long as the lease says; or be paused over it."""
        for hold in self.holds[place][-1:]:
            if hold.remaining() > 0 and not hold.policy.renew:
                bound = 60.0 if self.lingers else min(seconds, hold.remaining())
                self.acting[place] = self.world.now + bound

    @rule(seconds=st.sampled_from([0.0005, 0.0015, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 3.95, 5.0]))
    def pass_time(self, seconds):
        """Let time pass."""
        self.world.advance(seconds)

    @precondition(lambda self: not self.calm)
    @rule(place=st.integers(0, 2), seconds=st.sampled_from([0.0012, 0.05, 0.5, 3.0, 3.9, 6.0]))
    def pause(self, place, seconds):
        """Stop a process, at whatever it is doing."""
        self.processes[place].pause(seconds)

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 4))
    def stop(self, place):
        """Stop a node, or let it go on."""
        node = self.nodes[place]
        if node.stopped:
            node.resume()
        else:
            node.stopped = True

    @precondition(lambda self: not self.calm or self.forgets)
    @rule(place=st.integers(0, 4))
    def crash(self, place):
        """Kill a node, or start it with what it had; or do both at once, and it has forgotten."""
        node = self.nodes[place]
        if self.forgets:
            node.forget()
        else:
            node.up = not node.up

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 4), delay=st.sampled_from([0.0, 0.001, 0.02, 0.07, 0.4]))
    def slow_down(self, place, delay):
        """Make a node's answers come sooner or later."""
        self.nodes[place].delay = delay

    @invariant()
    def holds_now(self):
        """Look now, too."""
        if hasattr(self, "world"):
            self.look()

    def heal(self):
        """Have every node answer."""
        for node in self.nodes:
            node.up, node.delay, node.loses = True, 0.001, ""
            node.resume()

    @precondition(lambda self: self.ordered)
    @rule()
    def look_soon(self):
        """Heal all, and see that a second later no node keeps a lock that nobody has."""
        self.heal()
        for process in self.processes:
            process.paused_until = 0.0
        self.world.advance(1.0)
        for node in self.nodes:
            kept = node.held(KEY)
            assert kept is None or self.has_reason(node, kept[0]), "a lock is kept for nobody"

    def has_reason(self, node, payload):
        """Say whether a node may keep a token: somebody has it, or cannot ask the node just now."""
        place = self.processes.index(self.world.owners[payload])
        members = self.processes[place].cluster.members.values()
        return (
            any(hold.payload == payload and not hold.released for hold in self.holds[place])
            or self.tasks[place] is not None
            or any(member.backend is node and member.health.ejected for member in members)
        )

    def teardown(self):
        """Leave nothing half done."""
        self.world.finish(self.nodes, self.processes)

    @precondition(lambda self: not self.calm)
    @rule()
    def settle(self):
        """When all is well again and time has passed, nothing is left, and one who tries wins."""
        self.heal()
        self.world.advance(60.0)
        assert [node.held(KEY) for node in self.nodes] == [None] * 5
        assert self.tasks == [None] * 3
        lone = Process(self.world, self.nodes)
        for node in self.nodes[:2]:
            node.stopped = True
        hold = attempted(self.world, lone)
        assert hold is not None
        assert hold.remaining() > 0
        released = lone.run(hold.release())
        self.world.advance(1.0)
        assert released.done
        for node in self.nodes:
            node.resume()
        self.world.advance(10.0)


class Orderly(Locks):
    """Nodes that are told everything in order, as over one connection each."""

    ordered = calm = True


class Forgetful(Locks):
    """Nodes that lose their memory and are asked again at once."""

    forgets = calm = True


class Fast(Locks):
    """Nodes whose clocks run much faster than drift allows for."""

    fast = 1.5
    calm = True


class Lingering(Locks):
    """Processes that are paused between looking at their lease and acting on it."""

    lingers = calm = True


@pytest.mark.parametrize("machine", [Forgetful, Fast, Lingering])
@pytest.mark.slow
def test_the_machine_is_not_blind(machine):
    """What Redlock does not promise to survive leads to a violation that the machine finds."""
    seen = settings(
        max_examples=400,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
    )
    with pytest.raises(AssertionError, match=r"valid leases at once|act on the lock|came to life"):
        run_state_machine_as_test(machine, settings=seen)


def test_a_lone_process_takes_it_in_two_rounds():
    """One command to the gate, then one to each of the others, and all is given back."""
    world, nodes, (process, *_) = make_world()
    began = world.now
    hold = attempted(world, process)
    assert asked(nodes) == [1] * 5
    assert world.now - began == pytest.approx(0.004)  # two round trips of 2 ms
    assert hold.remaining() == pytest.approx(TTL - 0.004 - 0.01 * TTL - 0.002)
    task = process.run(hold.release())
    world.advance(1.0, lambda: task.done)
    assert task.result is True
    assert [node.held(KEY) for node in nodes] == [None] * 5


def test_one_of_many_wins_the_first_round():
    """Two hundred who try at once send little more than one command each, and one of them wins."""
    world, nodes, processes = make_world(processes=200)
    commands = []
    for node in nodes:
        node.store.execute = counted(node.store.execute, commands)
    tasks = [process.run(redlock.attempt(process.cluster, NAME, POLICY)) for process in processes]
    world.advance(5.0, lambda: all(task.done for task in tasks))
    assert sum(task.result is not None for task in tasks) == 1
    assert len(commands) <= 210


def counted(execute, commands):
    """Give `execute`, noting what it is asked."""

    def noted(command):
        commands.append(command)
        return execute(command)

    return noted


def test_a_silent_gate_is_asked_once():
    """The next in rank stands in for it; the wait for it is met once, by half a call's time."""
    world, nodes, (process, *_) = make_world()
    ranked(process)[0].stopped = True
    began = world.now
    hold = attempted(world, process)
    assert hold is not None
    assert 0.05 <= world.now - began <= 0.06
    task = process.run(hold.release())
    world.advance(1.0, lambda: task.done)
    began = world.now
    assert attempted(world, process) is not None
    assert world.now - began <= 0.02
    del nodes


@pytest.mark.parametrize("coarse", [False, True], ids=["compares", "cannot compare"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_two_of_five_nodes_do_not_matter(how, coarse):
    """A majority is enough, and nobody waits for those that are not part of it."""
    world, _, (process, *_) = make_world([coarse] * 5)
    for node in ranked(process)[3:]:
        node.up, node.stopped = how != "killed", how == "stopped"
    began = world.now
    hold = attempted(world, process)
    assert hold is not None
    assert world.now - began <= 0.02
    began = world.now
    task = process.run(hold.release())
    world.advance(1.0, lambda: task.done)
    assert world.now - began <= 0.02


@pytest.mark.parametrize("coarse", [False, True], ids=["compares", "cannot compare"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize(("which", "calls"), [(slice(3), 2), (slice(1, 4), 1), (slice(2, 5), 1)])
def test_three_of_five_nodes_are_too_many(how, which, calls, coarse):
    """It is said in the time of the calls that it takes, and nothing is left on the two others."""
    world, nodes, (process, *_) = make_world([coarse] * 5)
    for node in ranked(process)[which]:
        node.up, node.stopped = how != "killed", how == "stopped"
    began = world.now
    with pytest.raises(LockUnavailable) as raised:
        attempted(world, process)
    assert world.now - began <= calls * process.timeout + 0.02
    assert len(raised.value.errors) == 3
    world.advance(0.1)
    assert sum(node.held(KEY) is not None for node in nodes if node.up and not node.stopped) == 0


def test_who_waits_gets_it_when_it_is_released():
    """`acquire` tries again until its time is over, and says who stood in the way."""
    world, _, (first, second, *_) = make_world()
    hold = attempted(world, first)
    task = second.run(redlock.acquire(second.cluster, NAME, POLICY, 1.0))
    world.advance(5.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)
    task = second.run(redlock.acquire(second.cluster, NAME, POLICY, 1.0))
    world.advance(0.5)
    first.run(hold.release())
    world.advance(0.2)
    assert isinstance(task.result, redlock.HeldLock)


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5, (True, False, True, False, True)])
@pytest.mark.parametrize("tokens", [True, False])
def test_what_was_released_can_be_taken_at_once(kinds, tokens):
    """The word to a slow gate may not be overtaken by the next attempt at it."""
    world, _, (first, second, *_) = make_world(kinds)
    hold = attempted(world, first)
    if not tokens:  # as after a renewal whose replies were late
        hold._tokens = dict.fromkeys(hold.members)
    gate = ranked(first)[0]
    gate.delay = 0.02
    task = first.run(hold.release())
    world.advance(5.0, lambda: task.done)
    gate.delay = 0.001
    assert task.result is True
    assert attempted(world, second) is not None


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5, (True, False, True, False, True)])
@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("down", [0, 1, 4])
def test_so_it_can_beside_a_node_that_is_ejected(kinds, tokens, down):
    """Its refusal is not taken for the gate's word, and it is no gate itself."""
    world, _, (first, second, *_) = make_world(kinds)
    nodes = ranked(first)
    nodes.pop(down).up = False
    hold = attempted(world, first)
    assert sum(member.health.ejected for member in hold.members) == 1
    if not tokens:
        hold._tokens = dict.fromkeys(hold.members)
    nodes[0].delay = 0.02
    task = first.run(hold.release())
    world.advance(5.0, lambda: task.done)
    nodes[0].delay = 0.001
    assert task.result is True
    assert attempted(world, second) is not None


def test_a_release_does_not_wait_for_a_gate_known_to_be_silent():
    """The next attempt asks another first."""
    world, _, (first, *_) = make_world()
    hold = attempted(world, first)
    gate = ranked(first)[0]
    gate.stopped = True
    assert attempted(world, first) is None
    began = world.now
    task = first.run(hold.release())
    world.advance(5.0, lambda: task.done)
    assert task.result is True
    assert world.now - began < first.timeout / 2


def test_memcached_costs_a_second():
    """A lease on nodes that count whole seconds ends a second earlier, and never too late."""
    world, nodes, (process, other, *_) = make_world(kinds=(True,) * 5)
    hold = attempted(world, process)
    assert hold.remaining() <= TTL - 1.0
    world.advance(hold.remaining() - 0.01)
    assert attempted(world, other) is None
    assert sum(node.held(KEY) is not None for node in nodes) >= 3


def test_renewal_ends_with_max_hold():
    """It is prolonged every third of its ttl, for as long as it may be held, and then runs out."""
    world, _, (process, other, *_) = make_world()
    policy = LockPolicy(ttl=TTL, renew=True, max_hold=20.0)
    hold = attempted(world, process, policy)
    world.advance(19.0)
    assert hold.remaining() > 0
    assert attempted(world, other) is None
    world.advance(TTL + 1.0)
    assert hold.remaining() == 0
    assert attempted(world, other) is not None


def test_a_renewal_that_fails_loses_it():
    """The first time that a majority does not agree, the lock counts as lost."""
    world, nodes, (process, *_) = make_world()
    hold = attempted(world, process, RENEWED)
    for node in nodes[:3]:
        node.up = False
    world.advance(TTL / 3 + 0.5)
    assert hold.lost
    assert hold.remaining() == 0


def test_a_late_yes_is_taken_back():
    """What a slow node grants after the attempt has failed is released there."""
    world, nodes, (process, *_) = make_world()
    first, *others = ranked(process)
    for node in others[:3]:
        node.up = False
    first.delay = 0.12  # its answer comes after the call's time
    with pytest.raises(LockUnavailable):
        attempted(world, process)
    world.advance(2.0)
    assert [node.held(KEY) for node in nodes] == [None] * 5


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5, (True, False, True, False, True)])
def test_what_is_another_s_is_left_alone(kinds):
    """Whoever releases, extends or withdraws late changes nothing of the next holder's."""
    world, nodes, (first, second, *_) = make_world(kinds=kinds)
    late = attempted(world, first)
    world.advance(TTL + 1.0)
    hold = attempted(world, second)
    before = [node.held(KEY) for node in nodes]
    late.lost = ""
    late.until = world.now + 1.0  # as if its clock had stood still
    for work in (late.extend(8.0), late.release()):
        task = first.run(work)
        world.advance(0.5)
        assert task.result is False
    assert [node.held(KEY) for node in nodes] == before
    assert world.touched == []
    assert hold.remaining() > 0


@pytest.mark.parametrize("order", [(30.0, 1.0), (1.0, 30.0)])
def test_two_extensions_at_once_leave_the_shorter(order):
    """Their commands may reach the nodes in any order: more cannot be counted on."""
    world, _, (process, *_) = make_world()
    hold = attempted(world, process)
    tasks = [process.run(hold.extend(seconds)) for seconds in order]
    world.advance(0.001)
    assert hold.remaining() <= 1.0
    world.advance(1.0, lambda: all(task.done for task in tasks))
    assert [task.result for task in tasks] == [True, True]
    assert 0.9 < hold.remaining() <= 1.0


def test_a_renewal_leaves_a_longer_extension_alone():
    """What was asked for explicitly is not shortened in the background."""
    world, _, (process, *_) = make_world()
    hold = attempted(world, process, RENEWED)
    task = process.run(hold.extend(20.0))
    world.advance(1.0, lambda: task.done)
    world.advance(5.0)
    assert hold.remaining() > 14.0


def test_waiting_has_no_end_but_its_own():
    """However long that is, a waiter goes on asking."""
    world, _, (holder, waiter, *_) = make_world()
    held = LockPolicy(ttl=4.0, renew=True, max_hold=2000.0)
    attempted(world, holder, held)
    task = waiter.run(redlock.acquire(waiter.cluster, NAME, POLICY, 600.0))
    world.advance(700.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)


def test_an_extension_never_revives():
    """What has run out by the holder's clock is lost, even where nodes still have it."""
    world, nodes, (process, *_) = make_world(kinds=(True,) * 5)
    hold = attempted(world, process)
    world.advance(hold.remaining() + 0.001)
    assert all(node.held(KEY) is not None for node in nodes)
    task = process.run(hold.extend(8.0))
    world.advance(1.0, lambda: task.done)
    assert task.result is False
    assert (hold.lost, hold.remaining()) == ("its time ran out", 0.0)


def test_an_extension_never_creates():
    """A process that was paused between looking and extending puts nothing back."""
    world, nodes, (first, second, *_) = make_world(kinds=(True,) * 5)
    hold = attempted(world, first)
    task = first.run(hold.extend(8.0))
    world.advance(0.0015)  # it is being told that its locks are there
    first.pause(TTL + 2.0)
    world.advance(TTL + 1.0)
    other = attempted(world, second)
    before = [node.held(KEY) for node in nodes]
    world.advance(2.0, lambda: task.done)
    world.advance(0.1)
    assert task.result is False
    assert [node.held(KEY) for node in nodes] == before
    assert world.touched == []
    assert other.remaining() > 0


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
@pytest.mark.parametrize("steps", range(12))
def test_a_lock_given_back_while_it_is_prolonged_is_not_lost(kinds, steps):
    """Whatever step its renewal has reached: it was ours, nothing is left of it, and nobody is told."""
    world, nodes, _ = make_world(kinds=kinds)
    diary = Diary()
    process = Process(world, nodes, observers=[diary])
    hold = attempted(world, process, RENEWED)
    world.advance(TTL / 3 - 0.002 + steps * 0.0005)
    task = process.run(hold.release())
    world.advance(1.0, lambda: task.done)
    assert task.result is True
    assert hold._keeping.stopped
    world.advance(0.1)
    assert [node.held(KEY) for node in nodes] == [None] * 5
    world.advance(TTL)
    assert (hold.lost, diary.lost) == ("", [])


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_lock_given_back_is_not_prolonged(steps):
    """Not by one who has begun to, nor by one who begins to then: and it is still no loss."""
    world, nodes, _ = make_world()
    diary = Diary()
    process = Process(world, nodes, observers=[diary])
    hold = attempted(world, process)
    early = process.run(hold.extend(TTL))
    world.advance(steps * 0.0004)
    released = process.run(hold.release())
    world.advance(1.0, lambda: released.done)
    late = process.run(hold.extend(TTL))
    world.advance(1.0)
    assert (early.result, released.result, late.result) == (False, True, False)
    assert (hold.lost, diary.lost) == ("", [])
    assert [node.held(KEY) for node in nodes] == [None] * 5


def test_whoever_waits_waits_no_longer_than_asked():
    """However long the pauses are that were chosen."""
    world, _, (first, second, *_) = make_world()
    attempted(world, first)
    policy = LockPolicy(ttl=TTL, renew=False, backoff=lambda _: 30.0)
    began = world.now
    task = second.run(redlock.acquire(second.cluster, NAME, policy, 1.0))
    world.advance(60.0, lambda: task.done)
    assert isinstance(task.error, LockTimeout)
    assert world.now - began == pytest.approx(1.0, abs=0.1)


def test_a_loss_is_told_once():
    """By whatever it shows first, and however often the lock is used after that."""
    world, nodes, _ = make_world()
    diary = Diary()
    process = Process(world, nodes, observers=[diary])
    hold = attempted(world, process, RENEWED)
    for node in nodes:
        node.up = False
    world.advance(2 * TTL)
    for work in (hold.extend(TTL), hold.release(), hold.release()):
        task = process.run(work)
        world.advance(1.0, lambda task=task: task.done)
        assert task.result is False
    (event,) = diary.lost
    assert event.name == NAME.encode()
    assert hold.lost == "it could not be prolonged"


def test_a_renewal_that_cannot_be_asked_for_loses_it(monkeypatch):
    """As on a node that has joined a Redis Cluster: that it is lost is known at once."""
    world, _, (process, *_) = make_world()
    hold = attempted(world, process, RENEWED)

    async def refuse(*_):
        raise UnsupportedError("the server is part of a Redis Cluster")

    monkeypatch.setattr(type(process.cluster.io), "call_many", refuse)
    world.advance(TTL / 2)
    assert "could not be prolonged: the server is part of" in hold.lost
    assert hold.remaining() == 0


def test_who_cannot_win_asks_no_further():
    """When three of five nodes have failed one after another, the other two hear nothing of it."""
    world, nodes, (process, *_) = make_world()
    down, up = ranked(process)[:3], ranked(process)[3:]
    for node in down:
        node.up = False
    with pytest.raises(LockUnavailable):
        attempted(world, process)
    assert asked(up) == [0, 0]
    del nodes


def test_a_node_that_is_down_is_no_silent_gate():
    """It costs no time, so the next one is asked alone, and the rest only by whoever gets that."""
    world, _, (first, second, *_) = make_world()
    *down, gate, fourth, fifth = ranked(first)
    for node in down:
        node.up = False
    assert attempted(world, first) is not None
    commands = []
    for node in (gate, fourth, fifth):
        node.store.execute = counted(node.store.execute, commands)
    assert attempted(world, second) is None
    assert len(commands) == 1


@pytest.mark.parametrize(("delay", "won"), [(0.85, True), (0.9, False)])
def test_what_is_left_must_be_worth_having(delay, won):
    """Of a lock that took nearly all of its time to get, nothing is left, neither here nor there."""
    world, nodes, _ = make_world()
    process = Process(world, nodes, timeout=10.0)
    for node in nodes:
        node.delay = delay  # four of them until the answer of the rest is here
    task = process.run(redlock.attempt(process.cluster, NAME, POLICY))
    world.advance(20.0, lambda: task.done)
    assert (task.result is not None) is won
    assert won or [node.held(KEY) for node in nodes] == [None] * 5


@pytest.mark.parametrize(("delay", "kept"), [(0.75, True), (0.95, False)])
def test_what_an_extension_leaves_must_be_worth_having(delay, kept):
    """The same holds for what took nearly all of the new time to prolong."""
    world, nodes, _ = make_world()
    process = Process(world, nodes, timeout=10.0)
    hold = attempted(world, process)
    for node in nodes:
        node.delay = delay
    task = process.run(hold.extend(2.0))
    world.advance(10.0, lambda: task.done)
    assert task.result is kept
    assert bool(hold.lost) is not kept


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
def test_nodes_that_fail_at_its_end_have_not_lost_it(kinds):
    """Of a node that does not answer nobody knows whether it had the lock: it is not said to be lost."""
    world, nodes, (process, *_) = make_world(kinds=kinds)
    hold = attempted(world, process)
    for node in nodes[:3]:
        node.up = False
    task = process.run(hold.release())
    world.advance(1.0, lambda: task.done)
    world.advance(0.1)
    assert task.result is True


@pytest.mark.parametrize("kinds", [(False,) * 3, (True,) * 3, (True, False, True)])
def test_a_failure_is_no_no(kinds):
    """Whether its server compares in one step or in two, a node that failed has its error."""
    world, nodes, (process, *_) = make_world(kinds=kinds)
    hold = attempted(world, process)
    nodes[0].up = False
    members = [process.cluster.members[f"n{place}"] for place in range(3)]
    asks = [(member, CompareAndExpire(KEY, hold.payload, TTL)) for member in members]
    deadline = process.cluster.deadline()
    task = process.run(compared(process.cluster, asks, deadline, lambda _: False))
    world.advance(0.2)
    assert [type(reply) for reply in task.result] == [NodeUnavailableError, bool, bool]
    assert task.result[1:] == [True, True]


def test_an_extension_costs_memcached_s_second_as_well():
    """What was prolonged on nodes that count whole seconds never outlives it there."""
    world, nodes, (process, *_) = make_world(kinds=(True,) * 5)
    hold = attempted(world, process)
    task = process.run(hold.extend(8.0))
    world.advance(1.0, lambda: task.done)
    assert task.result is True
    assert 6.0 < hold.remaining() <= 7.0
    world.advance(hold.remaining() - 0.01)
    assert sum(node.held(KEY) is not None for node in nodes) >= 3


def test_a_lock_is_held_from_before_it_was_asked_for():
    """So the time it took to get counts against `max_hold`, and is told when it was lost."""
    world, nodes, (process, *_) = make_world()
    for node in nodes:
        node.delay = 0.02
    began = world.now
    hold = attempted(world, process)
    assert world.now > began
    assert hold.since == began


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("delay", [0.0005, 0.002, 0.01])
def test_a_cancelled_attempt_keeps_no_lock(kinds, delay):
    """Wherever it is cancelled: five round trips later anybody can have it."""
    for steps in range(1, 40):
        world, nodes, (process, other, *_) = make_world(kinds)
        for node in nodes:
            node.delay = delay
        task = process.run(redlock.attempt(process.cluster, NAME, POLICY))
        world.watch = Events(steps, task.cancel)
        world.advance(1.0, lambda task=task: task.done)
        if task.result is not None:
            break
        world.watch = lambda: None
        world.advance(10 * delay)
        assert [node.held(KEY) for node in nodes] == [None] * len(kinds), steps
        assert attempted(world, other) is not None
    assert steps >= 4


@pytest.mark.parametrize("kinds", KINDS)
def test_who_was_cancelled_does_not_stand_in_its_own_way(kinds):
    """The next attempt of the same process waits until its leftovers are gone, and gets the lock."""
    for steps in range(1, 12):
        world, _, (process, *_) = make_world(kinds)
        task = process.run(redlock.attempt(process.cluster, NAME, POLICY))
        world.watch = Events(steps, task.cancel)
        world.advance(1.0, lambda task=task: task.done)
        world.watch = lambda: None
        if task.result is None:
            assert attempted(world, process) is not None, steps


@pytest.mark.parametrize("kinds", KINDS)
def test_what_was_sent_to_silent_nodes_is_taken_back_when_they_go_on(kinds):
    """However long after the call's time that is, and though they have been ejected meanwhile."""
    for tries in (1, 4):
        world, nodes, (process, other, *_) = make_world(kinds)
        for node in ranked(process)[: len(nodes) // 2 + 1]:
            node.stopped = True
        for _ in range(tries):
            with pytest.raises(LockUnavailable):
                attempted(world, process)
        world.advance(2 * TTL)
        for node in nodes:
            node.resume()
        world.advance(0.05)
        assert [node.held(KEY) for node in nodes] == [None] * len(nodes)
        assert attempted(world, other) is not None


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("loses", ["commands", "replies"])
def test_a_connection_that_breaks_leaves_no_lock(kinds, loses):
    """Nobody knows whether the command had arrived: so the node is asked."""
    world, nodes, (process, *_) = make_world(kinds)
    for node in nodes:
        node.loses = loses
    with pytest.raises(LockUnavailable):
        attempted(world, process)
    for node in nodes:
        node.loses = ""
    world.advance(TTL / 2)
    assert [node.held(KEY) for node in nodes] == [None] * len(nodes)


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
def test_what_arrives_behind_the_first_look_is_taken_back_as_well(kinds):
    """Over another connection the look may overtake what is to be looked for."""
    world, nodes, (process, *_) = make_world(kinds)
    gate = ranked(process)[0]
    gate.delay = 0.03
    task = process.run(redlock.attempt(process.cluster, NAME, POLICY))
    world.advance(0.001)
    gate.delay = 0.001
    task.cancel()
    world.advance(0.02)
    assert gate.held(KEY) is None
    world.advance(0.012)
    assert gate.held(KEY) is not None
    world.advance(0.1)
    assert gate.held(KEY) is None
    del nodes


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_a_node_that_is_late_at_the_release_is_freed_when_it_answers(kinds, known):
    """Whoever released it does not wait for that."""
    world, nodes, (process, other, *_) = make_world(kinds)
    hold = attempted(world, process)
    if not known:  # as after a renewal
        hold._tokens = dict.fromkeys(hold.members)
    late = ranked(process)[1:] or nodes
    for node in late[-2:]:
        node.stopped = True
    finished(world, process, hold.release())
    world.advance(1.0)
    for node in nodes:
        node.resume()
    world.advance(0.05)
    assert [node.held(KEY) for node in nodes] == [None] * len(nodes)
    assert attempted(world, other) is not None


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("policy", [POLICY, RENEWED])
def test_an_interrupted_release_goes_on_beside_the_caller(kinds, policy):
    """Wherever a signal raises while it waits."""
    for steps in range(1, 12):
        world, nodes, (process, *_) = make_world(kinds)
        hold = attempted(world, process, policy)
        task = process.run(hold.release())
        world.watch = Events(steps + 1, task.cancel)  # once it has begun
        world.advance(0.5, lambda task=task: task.done)
        world.watch = lambda: None
        world.advance(0.2)
        assert [node.held(KEY) for node in nodes] == [None] * len(nodes), steps


def test_a_node_that_is_dead_is_not_asked_for_leftovers():
    """It refuses at once, so that only the prober asks whether it is back."""
    world, nodes, (process, *_) = make_world()
    hold = attempted(world, process)
    dead = ranked(process)[4]
    dead.up = False
    finished(world, process, hold.release())
    world.advance(0.5)
    asked_for = []
    dead.ask = lambda *call: asked_for.append(call)
    world.advance(0.5)
    assert len([call for call in asked_for if isinstance(call[1], Gets)]) == 0
    assert any(member.leftovers for member in hold.members)
    world.advance(60.0)
    assert not any(member.leftovers for member in hold.members)
    del nodes


def test_a_node_keeps_few_leftovers_in_mind():
    """Of more than it has room for the oldest are left to expire, and of none a newer one."""
    world, nodes, (process, *_) = make_world()
    (member, *_) = process.cluster.members.values()
    nodes[0].up = False
    finished(world, process, process.cluster.ask(member, Gets(KEY)))
    for number in range(1500):
        remove_later(process.cluster, [member], KEY, (256, b"%d" % number))
        remove_later(process.cluster, [member], KEY, (256, b"%d" % number))
        assert len(member.leftovers) == min(number + 1, 1000)
    assert [token for _, (_, token) in member.leftovers] == [b"%d" % n for n in range(500, 1500)]
    world.advance(60.0)
    assert member.leftovers == {}


@pytest.mark.parametrize("kinds", [(False,) * 3, (True,) * 3, (True, False, True), (True,) * 5])
def test_a_rolling_restart_loses_no_renewed_lock(kinds):
    """Nodes come back empty, one after another: each is given the token again."""
    world, nodes, (process, other, *_) = make_world(kinds)
    policy = LockPolicy(ttl=TTL, renew=True, max_hold=1000.0)
    hold = attempted(world, process, policy)
    for node in nodes:
        node.up = False
        world.advance(0.3)
        node.forget()
        node.up = True
        world.advance(2 * TTL)
        assert hold.remaining() > 0
        assert node.held(KEY) is not None
        assert attempted(world, other) is None
    assert finished(world, process, hold.release()) is True
    world.advance(0.05)
    assert [node.held(KEY) for node in nodes] == [None] * len(nodes)


@pytest.mark.parametrize("kinds", [(False,) * 5, (True,) * 5])
@pytest.mark.parametrize("forgets", [True, False])
def test_a_slow_node_is_prolonged_as_well(kinds, forgets):
    """Nobody waits for it, but all steps are gone through: it may be needed for a majority later."""
    world, nodes, (process, *_) = make_world(kinds)
    hold = attempted(world, process, RENEWED)
    slow = nodes[2]
    slow.delay = 0.02
    if forgets:
        slow.forget()
    world.advance(3 * TTL)
    assert hold.remaining() > 0
    assert slow.held(KEY) is not None
    slow.delay = 0.001
    finished(world, process, hold.release())
    world.advance(0.1)
    assert slow.held(KEY) is None


@pytest.mark.parametrize("kinds", KINDS[:3])
def test_an_extension_never_takes_another_s_place(kinds):
    """On nodes that have lost it and were taken by another meanwhile, it stays the other's."""
    world, nodes, (first, *_) = make_world(kinds)
    hold = attempted(world, first)
    for node in nodes[:3]:
        node.forget()
        node.store.execute(Acquire(KEY, (256, b"another's"), 60.0))
    assert finished(world, first, hold.extend(TTL)) is False
    assert hold.lost == "it could not be prolonged"
    assert [node.held(KEY)[0][1] for node in nodes[:3]] == [b"another's"] * 3


@pytest.mark.parametrize("kinds", KINDS[:3])
def test_what_has_ended_is_not_put_back(kinds):
    """A process that was paused while it asked whether its locks are there creates nothing."""
    world, nodes, (first, *_) = make_world(kinds)
    hold = attempted(world, first)
    for node in nodes:
        node.forget()
    task = first.run(hold.extend(8.0))
    world.advance(0.0015)  # it is being told that they are gone
    first.pause(TTL + 2.0)
    world.advance(TTL + 3.0)
    assert task.result is False
    assert asked(nodes) == [0] * 5


@pytest.mark.parametrize("kinds", KINDS[:3])
@pytest.mark.parametrize("steps", range(1, 10))
def test_what_is_released_while_it_is_put_back_is_gone(kinds, steps):
    """Whatever step the extension has reached: nothing of it is left a moment later."""
    world, nodes, (process, *_) = make_world(kinds)
    hold = attempted(world, process)
    for node in nodes[:2]:
        node.forget()
    task = process.run(hold.extend(TTL))
    world.advance(steps * 0.0005)
    finished(world, process, hold.release())
    world.advance(0.3)
    assert task.done
    assert [node.held(KEY) for node in nodes] == [None] * 5


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("ttl", [0.3, 1.0, 1.5, 2.0, 2.5])
def test_a_short_lock_on_memcached_holds_for_what_was_asked(ttl, phase):
    """Its nodes are asked for two seconds at least, and keep it for longer than the lease lasts."""
    world, nodes, (process, other, *_) = make_world(kinds=(True,) * 5)
    world.advance(phase)
    policy = LockPolicy(ttl=ttl, renew=False)
    for extends in (False, True):
        hold = attempted(world, process, policy)
        assert 0.9 * min(ttl, math.ceil(ttl) - 1 or 1) - 0.01 < hold.remaining() < ttl
        if extends:
            world.advance(hold.remaining() / 2)
            assert finished(world, process, hold.extend(ttl)) is True
            assert 0.9 * min(ttl, math.ceil(ttl) - 1 or 1) - 0.01 < hold.remaining() < ttl
        world.advance(hold.remaining() - 0.01)
        assert attempted(world, other, policy) is None
        assert sum(node.held(KEY) is not None for node in nodes) == 5
        world.advance(3.0)


def test_held_is_what_a_majority_says():
    """It takes one round trip, changes nothing, and needs no node beyond the majority."""
    world, nodes, (first, second, *_) = make_world(kinds=(True, False, True, False, True))

    def held():
        return finished(world, second, redlock.held(second.cluster, NAME))

    assert held() is False
    hold = attempted(world, first)
    began = world.now
    assert held() is True
    assert world.now - began < 0.005
    assert asked(nodes) == [1] * 5
    for node in nodes[3:]:
        node.stopped = True
    assert held() is True
    finished(world, first, hold.release())
    assert held() is False
    for node in nodes[3:]:
        node.resume()


def test_two_halves_are_no_holder():
    """Two attempts under way at once have the nodes between them: nobody holds the lock."""
    world, nodes, (process, *_) = make_world()
    for place, node in enumerate(nodes):
        node.store.execute(Acquire(KEY, (256, b"two" if place < 2 else b"%d" % place), 60.0))
    assert finished(world, process, redlock.held(process.cluster, NAME)) is False


@pytest.mark.parametrize(("down", "known"), [(1, True), (2, False), (3, False)])
def test_held_is_not_guessed(down, known):
    """When those that fail could make the difference it is an error that names them."""
    world, nodes, (process, *_) = make_world()
    for node in nodes[:2]:
        node.store.execute(Acquire(KEY, (256, b"token"), 60.0))
    for node in nodes[5 - down :]:
        node.up = False
    if known and down == 1:
        nodes[1].forget()
    work = redlock.held(process.cluster, NAME)
    if known:
        assert finished(world, process, work) is False
        return
    with pytest.raises(LockUnavailable, match=f"{down} of 5 nodes failed.*and 3 have to agree"):
        finished(world, process, work)


def test_who_waits_without_end_is_never_late():
    """`None` is no time at all in which to give up."""
    world, _, (holder, waiter, *_) = make_world()
    held = LockPolicy(ttl=4.0, renew=True, max_hold=2000.0)
    hold = attempted(world, holder, held)
    task = waiter.run(redlock.acquire(waiter.cluster, NAME, POLICY, None))
    world.advance(1500.0)
    assert not task.done
    finished(world, holder, hold.release())
    world.advance(0.5)
    assert isinstance(task.result, redlock.HeldLock)


# Behind all others: where those fail already, nothing is to be searched for.
TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestOrderly = Orderly.TestCase
TestOrderly.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
