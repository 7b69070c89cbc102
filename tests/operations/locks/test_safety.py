"""No two processes hold one lock, whatever happens to them and the nodes: a search by state machines."""

from __future__ import annotations

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

from operations.harness import ON_THE_WAY, ON_THE_WAY_BACK, ONE_WAY, LockHarness
from operations.simulation import Process
from shardcache.core.leases import LockPolicy
from shardcache.errors import LockUnavailable
from shardcache.operations.locks.acquire import attempt
from shardcache.operations.locks.held import HeldLock

TTL = 4.0
POLICY = LockPolicy(ttl=TTL, renew=False)
SHORT = LockPolicy(ttl=1.0, renew=False)
RENEWED = LockPolicy(ttl=TTL, renew=True, max_hold=30.0)


class Locks(RuleBasedStateMachine):
    """Three processes, five nodes, and all that may befall them without the promise being broken.

    With one of the switches on, something befalls them that Redlock does not promise to survive.
    """

    forgets = False  # a node that restarts has lost what it had, and is asked at once
    fast = 1.0  # the rate of the nodes' clocks
    lingers = False  # a process acts on a lease it looked at before it was paused
    calm = False  # few other faults, so that the search finds its violation soon
    ordered = False  # no command overtakes another, so that leftovers are soon gone

    @initialize(kinds=st.lists(st.booleans(), min_size=5, max_size=5), seed=st.integers(0, 99))
    def begin(self, kinds, seed):
        """Make the world."""
        self.harness = LockHarness(kinds, seed=seed)
        self.world, self.nodes = self.harness.world, self.harness.nodes
        self.processes = self.harness.processes
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
                if isinstance(task.result, HeldLock):
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
            self.tasks[place] = process.run(attempt(process.cluster, LockHarness.NAME, policy))

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(
        place=st.integers(0, 2),
        seconds=st.sampled_from([ON_THE_WAY, ON_THE_WAY_BACK, 0.0025, 0.01, 0.06]),
    )
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
        """Start to extend the latest lock, be it valid or not."""
        if self.holds[place] and self.tasks[place] is None:
            hold = self.holds[place][-1]
            self.tasks[place] = self.processes[place].run(hold.extend(ttl))

    @precondition(lambda self: self.ordered or not self.calm)
    @rule(place=st.integers(0, 2))
    def release(self, place):
        """Start to release the latest lock, be it valid or not."""
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

    @rule(
        seconds=st.sampled_from(
            [ON_THE_WAY, ON_THE_WAY_BACK, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 3.95, 5.0]
        )
    )
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
            node.up, node.delay, node.loses = True, ONE_WAY, ""
            node.resume()

    @precondition(lambda self: self.ordered)
    @rule()
    def look_soon(self):
        """Heal all nodes: a second later none keeps a lock without a holder."""
        self.heal()
        for process in self.processes:
            process.paused_until = 0.0
        self.world.advance(1.0)
        for node in self.nodes:
            kept = node.held(LockHarness.KEY)
            assert kept is None or self.has_reason(node, kept[0]), "a lock is kept for nobody"

    def has_reason(self, node, payload):
        """Return whether a node may keep a token: it has a holder, or its process cannot ask the node now."""
        place = self.processes.index(self.world.owners[payload])
        members = self.processes[place].cluster.members.values()
        return (
            any(hold.grant.payload == payload and not hold.released for hold in self.holds[place])
            or self.tasks[place] is not None
            or any(member.backend is node and member.health.ejected for member in members)
        )

    def teardown(self):
        """Leave nothing half done."""
        self.world.finish(self.nodes, self.processes)

    @precondition(lambda self: not self.calm)
    @rule()
    def settle(self):
        """When all nodes are well and time has passed, nothing is left, and an attempt wins."""
        self.heal()
        self.world.advance(60.0)
        assert [node.held(LockHarness.KEY) for node in self.nodes] == [None] * 5
        assert self.tasks == [None] * 3
        lone = Process(self.world, self.nodes)
        for node in self.nodes[:2]:
            node.stopped = True
        hold = self.harness.attempt(lone, POLICY)
        assert hold is not None
        assert hold.remaining() > 0
        released = lone.run(hold.release())
        self.world.advance(1.0)
        assert released.done
        for node in self.nodes:
            node.resume()
        self.world.advance(10.0)


class Orderly(Locks):
    """Nodes that get all commands in order, as over one connection each."""

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
    """The search finds a violation where Redlock promises nothing."""
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


# Behind all others: where those fail already, nothing is to be searched for.
TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestOrderly = Orderly.TestCase
TestOrderly.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
