"""No process serves what was invalidated, whatever a minority of nodes does: a search by a state machine."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from operations.cached_harness import PLANTED, FunctionHarness
from operations.harness import ONE_WAY
from shardcache.core.leases import quorum
from shardcache.core.reserved_keys import MARKS
from shardcache.operations.invalidation.generations import LOOK_AGAIN

DAY = 24 * 3600.0


class Machine(RuleBasedStateMachine):
    """Processes that call and invalidate while a minority of the nodes does what it likes.

    A call more than a second after an `invalidate_all` has returned `True`, or in the same process
    at once, never gets what was computed before it.
    """

    @initialize(
        nodes=st.sampled_from([1, 3, 5]),
        skews=st.lists(st.floats(-0.4 * DAY, 0.4 * DAY), min_size=3, max_size=3),
        seed=st.integers(0, 2**16),
        moving=st.booleans(),
    )
    def begin(self, nodes, skews, seed, moving):
        """Begin with sound nodes."""
        self.harness = FunctionHarness(nodes=nodes, processes=3, skews=skews)
        self.harness.world.chance.seed(seed)
        self.minority = nodes - quorum(nodes)
        self.moving = moving  # whether nodes are away by turns, or some of them do all that is bad
        self.liars = self.harness.nodes[: self.minority]
        self.acknowledged = []  # moment, version, process
        self.under_way = []

    def floor(self, place):
        """Return the oldest version that a process may get now."""
        now = self.harness.now
        return max(
            (
                version
                for moment, version, process in self.acknowledged
                if process == place or now - moment > LOOK_AGAIN
            ),
            default=0,
        )

    def settle(self, seconds):
        """Let time pass, and look at what has come back."""
        harness = self.harness
        end = harness.now + seconds
        while harness.now < end:
            waited = list(self.under_way)
            harness.advance(
                end - harness.now, lambda waited=waited: any(each[0].done for each in waited)
            )
            for each in [each for each in self.under_way if each[0].done]:
                self.under_way.remove(each)
                self.ended(*each)

    def ended(self, task, place, version, floor):
        """Check what a call got, or note what an invalidation did."""
        assert task.error is None
        if version is None:
            assert task.result >= floor
        elif task.result is True:
            self.acknowledged.append((self.harness.now, version, place))

    @rule(place=st.integers(0, 2), wait=st.floats(0.0, 0.3))
    def call(self, place, wait):
        """Call."""
        floor = self.floor(place)
        function = self.harness.functions[place]
        task = self.harness.processes[place].begin(lambda: function.value((), {}))
        self.under_way.append((task, place, None, floor))
        self.settle(wait)

    @rule(place=st.integers(0, 2), wait=st.floats(0.0, 0.3))
    def invalidate(self, place, wait):
        """Change the source and invalidate all."""
        self.harness.version += 1
        function = self.harness.functions[place]
        task = self.harness.processes[place].begin(function.invalidate_all)
        self.under_way.append((task, place, self.harness.version, 0))
        self.settle(wait)

    @rule(seconds=st.sampled_from([0.0005, 0.01, 0.5, 0.99, 1.01, 2.5]))
    def wait(self, seconds):
        """Let time pass."""
        self.settle(seconds)

    @rule(place=st.integers(0, 2))
    def restart(self, place):
        """End a process: another takes its place, which knows nothing."""
        skew = self.harness.processes[place].skew
        self.harness.processes[place].dead = True
        self.under_way = [each for each in self.under_way if each[1] != place]
        number = self.harness.add_process(skew)
        self.harness.processes[place] = self.harness.processes.pop(number)
        self.harness.functions[place] = self.harness.functions.pop(number)

    @rule(data=st.data(), how=st.sampled_from(["down", "stopped", "slow"]))
    def trouble(self, data, how):
        """Have some nodes away, or slow, and those that were back and asked again."""
        nodes = self.harness.nodes if self.moving else self.liars
        away = data.draw(st.permutations(nodes))[: self.minority]
        self.recover()
        for node in away:
            node.up, node.stopped = how != "down", how == "stopped"
            node.delay = 0.03 if how == "slow" else ONE_WAY

    def recover(self):
        """Have all nodes back, and wait until each process asks them again."""
        for node in self.harness.nodes:
            node.up, node.delay = True, ONE_WAY
            node.resume()
        while any(
            member.health.ejected
            for process in self.harness.processes
            for member in process.cluster.members.values()
        ):
            self.settle(0.5)

    @precondition(lambda self: not self.moving)
    @rule(
        data=st.data(),
        key=st.sampled_from([MARKS, FunctionHarness.NAME]),
        payload=st.sampled_from(list(PLANTED.values())),
    )
    def plant(self, data, key, payload):
        """Plant a payload on a node of the minority."""
        if self.liars:
            self.harness.plant(key, payload, [data.draw(st.sampled_from(self.liars))])

    @precondition(lambda self: not self.moving)
    @rule(data=st.data())
    def forget(self, data):
        """Have a node of the minority lose all."""
        if self.liars:
            data.draw(st.sampled_from(self.liars)).forget()

    def teardown(self):
        """When all is well again all processes get the newest."""
        if not hasattr(self, "harness"):
            return
        self.settle(5.0)
        assert not self.under_way
        self.recover()
        self.harness.advance(2 * LOOK_AGAIN)
        for place in range(3):
            assert self.harness.call(place) >= self.floor(place)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
