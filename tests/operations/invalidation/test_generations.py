"""Tags and generations in a world of virtual time: what many processes agree on, whoever fails."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from operations.harness import ON_THE_WAY, ONE_WAY, ROUND_TRIP, FunctionHarness
from operations.simulation import GRACE, TIMEOUT
from shardcache.clients.function_cache import FunctionCache
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.caching import CachePolicy
from shardcache.core.commands import Delete, Get, GetMany, Gets, Set
from shardcache.core.generations import believed, in_force, is_decided, newer
from shardcache.core.leases import quorum
from shardcache.core.payloads import MARK_FLAGS
from shardcache.core.reserved import MARKS
from shardcache.operations.invalidation import tags
from shardcache.operations.invalidation.generations import LOOK_AGAIN

TAG = tags.TAGS + b"t"
DAY = 24 * 3600.0
# What somebody may plant where a generation or a mark is kept.
PLANTED = {
    "junk": (MARK_FLAGS, b"zzz"),
    "extreme": (MARK_FLAGS, b"f" * 16),
    "17 digits": (MARK_FLAGS, b"1" * 17),
    "old": (MARK_FLAGS, b"0" * 12 + b"beef"),
    "now": (MARK_FLAGS, b"%012xbeef" % 1_005_000),
    "nearly a day ahead": (MARK_FLAGS, b"%012xbeef" % 87_000_000),
    "more than a day ahead": (MARK_FLAGS, b"%012xbeef" % 99_000_000),
    "stub": (0, b""),
    "empty": (MARK_FLAGS, b""),
    "of another kind": (0, b"0" * 12 + b"beef"),
}


class TestNames:
    """Which generation is believed, and which of many is in force."""

    @given(st.lists(st.sampled_from("123456"), min_size=1, max_size=5), st.integers(0, 4))
    def test_a_majority_s_word_is_never_missed(self, names, more):
        """What a majority has, or a newer one, is in force, whoever of the others is heard."""
        nodes = len(names) + more
        if nodes % 2 == 0 or len(names) < quorum(nodes):
            return
        for unheard in itertools.product(["", "3", "6"], repeat=more):
            told = sorted([*names, *unheard], reverse=True)
            assert in_force(names, nodes) >= told[quorum(nodes) - 1]

    @given(st.lists(st.sampled_from("123456"), min_size=3, max_size=5))
    def test_a_minority_s_word_is_not_believed(self, names):
        """When all are heard, no fewer than half of them can say what no other node has."""
        if len(names) % 2:
            wanted = quorum(len(names))
            assert in_force(names, len(names)) == sorted(names, reverse=True)[wanted - 1]
            assert is_decided(names, len(names))

    @given(st.lists(st.sampled_from("1234"), min_size=1, max_size=5), st.sampled_from([3, 5]))
    def test_what_is_decided_stays(self, names, nodes):
        """Whatever the nodes say that were not heard yet."""
        if len(names) <= nodes and is_decided(names, nodes):
            for more in itertools.product(["", "2", "9"], repeat=nodes - len(names)):
                assert in_force([*names, *more], nodes) == in_force(names, nodes)

    @given(st.floats(0, 10**10), st.floats(-DAY + 1, DAY - 1), st.binary(min_size=2, max_size=2))
    def test_a_new_one_is_believed_and_newer(self, wall, skew, chance):
        """By all whose clocks differ by less than a day, also after one of theirs."""
        first = newer([""], [], max(0.0, wall + skew), chance)
        assert believed((MARK_FLAGS, first.encode()), wall) == first
        second = newer(["", first], [], wall, chance)
        assert second > first
        assert believed((MARK_FLAGS, second.encode()), wall) == second


class TestGenerations:
    """The generation of one function's values."""

    def test_all_come_to_know_it(self):
        """The caller at once, others with their first call after a second."""
        harness = FunctionHarness(nodes=3)
        assert [harness.call(0), harness.call(1)] == [0, 0]
        assert harness.invalidate(0) is True
        assert harness.call(0) == 1
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 1
        assert harness.computed == 2

    @pytest.mark.parametrize("rest", [LOOK_AGAIN + 0.001, 1.5, 2.5, 3600.0])
    def test_a_call_after_any_rest_waits_for_one_round_trip(self, rest):
        """The mark is looked at along with the read."""
        harness = FunctionHarness(nodes=5)
        harness.call()
        harness.advance(rest)
        assert harness.call_seconds() == pytest.approx(ROUND_TRIP)

    @pytest.mark.parametrize("silent", list(itertools.combinations(range(5), 2)))
    def test_it_does_not_wait_for_a_silent_minority(self, silent):
        """But for a moment; nor does a process that starts then, nor one that invalidates."""
        harness = FunctionHarness(nodes=5, processes=3)
        harness.call()
        for place in silent:
            harness.nodes[place].stopped = True
        harness.advance(2.0)
        if not harness.owner.stopped:
            assert harness.call_seconds() <= ROUND_TRIP + GRACE + 1e-9
            assert harness.call_seconds(1) <= ROUND_TRIP + GRACE + 1e-9
        began = harness.now
        task = harness.start(harness.functions[2].invalidate_all(), 2)
        harness.advance(5.0, lambda: task.done)
        assert task.result is True
        assert harness.now - began < TIMEOUT / 4

    def test_a_new_process_knows_it_before_its_first_hit(self):
        """In one round trip when nothing was ever invalidated, in two when something was."""
        harness = FunctionHarness(nodes=5, processes=3)
        harness.call(0)
        assert harness.call_seconds(1) == pytest.approx(ROUND_TRIP)
        harness.invalidate(0)
        harness.call(0)
        began = harness.now
        task = harness.start_call(2)
        harness.advance(1.0, lambda: task.done)
        assert task.result == 1
        assert harness.now - began == pytest.approx(2 * ROUND_TRIP)
        assert harness.computed == 2

    def test_nodes_are_asked_once_a_second(self):
        """With one command each, for the mark alone; and with none while nobody calls."""
        harness = FunctionHarness(nodes=3, processes=1)
        harness.call()
        asked = harness.record_commands()
        for _ in range(50):
            harness.call()
            harness.advance(0.1)
        looks = [command for command in asked if type(command) is GetMany]
        assert {tuple(look.keys) for look in looks} == {(MARKS,)}
        assert 3 * 5 <= len(looks) <= 3 * 7
        assert all(type(command) in {Get, GetMany} for command in asked)
        asked.clear()
        harness.advance(3600.0)
        assert asked == []

    def test_functions_share_one_look(self):
        """Of a hundred functions one looks at the mark, and none at its generation."""
        harness = FunctionHarness(nodes=3, processes=1)
        process = harness.processes[0]
        functions = [
            FunctionCache(
                lambda: process.caches,
                harness.functions[0].function,
                CachePolicy(ttl=None),
                KeyBuilder(harness.functions[0].function, KeySpec(namespace=f"f{number}")),
            )
            for number in range(100)
        ]
        for function in functions:
            harness.run(function.value((), {}))
        harness.advance(10.0)
        asked = harness.record_commands()
        tasks = [harness.start(function.value((), {})) for function in functions[:1]]
        harness.advance(0.1)
        tasks += [harness.start(function.value((), {})) for function in functions]
        harness.advance(0.1)
        assert all(task.done for task in tasks)
        assert sum(type(command) is GetMany for command in asked) == 3
        assert sum(type(command) is Get for command in asked) == 101

    def test_an_unmoved_mark_spares_the_generations(self):
        """They are read when it has moved, by each process once, and those of others too."""
        harness = FunctionHarness(nodes=3)
        harness.call(0)
        harness.call(1)
        harness.invalidate(0)
        harness.advance(2.0)
        asked = harness.record_commands()
        assert harness.call(1) == 1
        read = [tuple(command.keys) for command in asked if type(command) is GetMany]
        assert (
            read == [(MARKS,)] * 3 + [(FunctionHarness.NAME,)] * 3
        )  # of the first generation nothing is kept

    def test_what_was_asked_before_a_renewal_says_nothing(self):
        """A reply that comes later than the new generation does not bring the old one back."""
        harness = FunctionHarness()
        harness.invalidate()
        harness.advance(2 * LOOK_AGAIN)
        harness.processes[0].generations.epoch = object()
        looking = harness.start(harness.functions[0].key_for((), {}))
        harness.advance(ON_THE_WAY)
        harness.node.delay = 0.05  # of the reply
        harness.advance(ONE_WAY)
        harness.node.delay = ONE_WAY
        assert harness.invalidate() is True
        assert not looking.done
        harness.advance(0.1, lambda: looking.done)
        assert [harness.known()] == harness.kept
        assert looking.result == harness.run(harness.functions[0].key_for((), {}))

    def test_a_read_of_an_old_generation_is_void(self):
        """A look that comes back with another generation has the value read anew."""
        harness = FunctionHarness(nodes=3)
        assert [harness.call(0), harness.call(1)] == [0, 0]
        harness.invalidate(0)
        assert harness.call(0) == 1
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 1
        assert harness.computed == 2  # that of the other process is found

    @pytest.mark.parametrize("lost", list(itertools.combinations(range(5), 2)))
    def test_two_lost_nodes_of_five_lose_nothing(self, lost):
        """Who starts later is told by the others, and tells those that lost it."""
        harness = FunctionHarness(nodes=5)
        harness.invalidate(0)
        for place in lost:
            harness.nodes[place].forget()
        harness.call(1)
        assert harness.kept == [harness.known(0)] * 5 == [harness.known(1)] * 5

    def test_nodes_that_have_lost_all_are_told(self):
        """By a process that knows, as soon as it sees that their mark is gone."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        for node in harness.nodes:
            node.forget()
        harness.advance(LOOK_AGAIN)
        harness.call(0)
        assert harness.kept == [harness.known(0)] * 3
        harness.call(1)
        assert harness.known(1) == harness.known(0)

    def test_one_that_was_evicted_is_put_back(self):
        """Though nothing else is lost, and nobody invalidates: it is looked at now and then."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        for node in harness.nodes:
            node.store.execute(Delete(FunctionHarness.NAME))
        harness.advance(LOOK_AGAIN)
        harness.call(0)
        assert harness.kept == [harness.known(0)] * 3

    @pytest.mark.parametrize("down", range(3))
    def test_one_that_missed_it_is_told(self, down):
        """A node that was away meanwhile has an older one, which nobody goes back to."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        harness.nodes[down].up = False
        assert harness.invalidate(0) is True
        harness.nodes[down].up = True
        harness.nodes[(down + 1) % 3].up = False  # of those that have it
        harness.call(1)
        assert harness.known(1) == harness.known(0)
        assert harness.kept[down] == harness.known(0)

    def test_nothing_is_put_back_over_a_newer_one(self):
        """Another may have begun one since the node was looked at."""
        harness = FunctionHarness(nodes=1)
        harness.invalidate()
        harness.node.forget()
        newest = b"%012xbeef" % 2_000_000
        execute = harness.node.store.execute

        def faster(command):
            reply = execute(command)
            if isinstance(command, Gets):
                execute(Set(FunctionHarness.NAME, (MARK_FLAGS, newest)))
            return reply

        harness.node.store.execute = faster
        harness.advance(2 * LOOK_AGAIN)
        harness.call()
        assert harness.kept == [newest.decode()]

    def test_a_node_never_goes_back(self):
        """Of many who invalidate at once the newest is kept, whatever comes last."""
        for seed in range(20):
            harness = FunctionHarness(nodes=3, processes=4)
            chance = harness.world.chance
            chance.seed(seed)
            tasks = []
            for place in range(4):
                for node in harness.nodes:
                    node.delay = chance.uniform(0.0005, 0.003)
                tasks.append(harness.start(harness.functions[place].invalidate_all(), place))
                harness.advance(chance.uniform(0, 0.005))
            harness.advance(1.0)
            assert all(task.result is True for task in tasks)
            assert set(harness.kept) == {max(map(harness.known, range(4)))}


class TestTruth:
    """`True` means that it is in force; what somebody planted ends nothing."""

    @pytest.mark.parametrize("nodes", [3, 5])
    @pytest.mark.parametrize("key", [MARKS, FunctionHarness.NAME])
    @pytest.mark.parametrize("planted", PLANTED)
    @pytest.mark.parametrize("begun", [False, True])
    def test_what_one_node_says_ends_nothing(self, nodes, key, planted, begun):
        """Not in a process that runs, nor in one that starts; and it is not told to others."""
        for place in range(nodes):
            harness = FunctionHarness(nodes=nodes)
            if begun:
                harness.invalidate()
            version = harness.call()
            before = harness.kept
            harness.plant(key, PLANTED[planted], [harness.nodes[place]])
            for _ in range(3):
                harness.advance(2.0)
                assert harness.call(0) == harness.call(1) == version
            assert harness.computed == 1
            others = [kept for at, kept in enumerate(harness.kept) if at != place]
            assert others == [kept for at, kept in enumerate(before) if at != place]
            assert harness.invalidate() is True
            assert harness.call(0) == harness.version
            harness.advance(LOOK_AGAIN)
            assert harness.call(1) == harness.call(harness.add_process()) == harness.version

    @pytest.mark.parametrize("nodes", [1, 3])
    @pytest.mark.parametrize("key", [MARKS, FunctionHarness.NAME])
    @pytest.mark.parametrize("planted", PLANTED)
    def test_what_all_nodes_say_is_recovered_from(self, nodes, key, planted):
        """The next `invalidate_all` is in force for all."""
        harness = FunctionHarness(nodes=nodes)
        harness.invalidate()
        harness.call(0)
        harness.call(1)
        harness.plant(key, PLANTED[planted], harness.nodes)
        harness.advance(2.0)
        assert harness.call(0) == harness.version
        harness.call(harness.add_process())
        assert harness.invalidate() is True
        assert harness.call(0) == harness.version
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == harness.call(harness.add_process()) == harness.version
        assert harness.kept == [harness.known(0)] * nodes

    @pytest.mark.parametrize("silent", [False, True])
    def test_false_while_no_majority_takes_note(self, silent):
        """It is said that it was too few; once more when they are back, and it is in force."""
        harness = FunctionHarness(nodes=3)
        harness.call(1)
        for node in harness.nodes[1:]:
            node.stopped, node.up = silent, silent
        assert harness.invalidate(0) is False
        for node in harness.nodes[1:]:
            node.up = True
            node.resume()
        harness.advance(20.0)
        assert harness.invalidate(0) is True
        assert harness.call(0) == harness.call(harness.add_process()) == 2
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 2

    @pytest.mark.parametrize("key", [MARKS, FunctionHarness.NAME])
    def test_false_when_few_store_either(self, key):
        """A generation without a moved mark is seen by few, and the other way round is none."""
        harness = FunctionHarness(nodes=3)
        harness.call(0)
        for node in harness.nodes[:2]:

            def stubborn(command, execute=node.store.execute):
                refused = type(command) is Set and command.key == key
                return False if refused else execute(command)

            node.store.execute = stubborn
        assert harness.invalidate(0) is False

    def test_one_that_could_not_be_stored_is_none(self):
        """It is said, and this process goes on with the one that all others have."""
        harness = FunctionHarness()
        harness.invalidate()
        (kept,) = harness.kept
        harness.node.up = False
        assert harness.invalidate() is False
        assert harness.known() == kept

    def test_one_of_a_fast_clock_is_passed(self):
        """What another machine began in the future does not hide what is begun now."""
        harness = FunctionHarness(nodes=3, processes=3, skews=[0.9 * DAY, 0.0, 0.0])
        for place in (1, 2):
            harness.call(place)
        assert harness.invalidate(0) is True
        harness.advance(LOOK_AGAIN)
        assert [harness.call(place) for place in range(3)] == [1, 1, 1]
        assert harness.invalidate(1) is True
        assert harness.call(1) == 2
        harness.advance(LOOK_AGAIN)
        assert [harness.call(place) for place in range(3)] == [2, 2, 2]

    def test_a_look_that_saw_a_mark_half_moved_is_not_the_last(self):
        """Generations that were read along with it may be older than the mark."""
        harness = FunctionHarness(nodes=3, processes=3)
        harness.call(0)
        second, third = (node for node in harness.nodes if node is not harness.owner)
        first = harness.owner
        first.delay = 0.02  # what it is asked comes when all is over
        slow = harness.start_call(2)
        harness.advance(ON_THE_WAY)
        third.delay = 0.05  # of the reply, so that the first is waited for
        harness.advance(ONE_WAY)
        first.delay = third.delay = ONE_WAY
        third.up = False
        assert harness.invalidate(0) is True
        harness.advance(5.0, lambda: slow.done)
        third.up, second.stopped = True, True
        harness.advance(LOOK_AGAIN)
        assert harness.call(2) == 1

    def test_a_second_begins_with_the_question(self):
        """Who invalidates while an answer is on its way is seen a second later all the same."""
        harness = FunctionHarness(nodes=1)
        harness.call(1)
        harness.advance(2.0)
        began = harness.now
        slow = harness.start_call(1)
        harness.advance(ON_THE_WAY)
        harness.node.delay = 0.05  # of the reply
        harness.advance(ONE_WAY)
        harness.node.delay = ONE_WAY
        assert harness.invalidate(0) is True
        harness.advance(1.0, lambda: slow.done)
        assert slow.result == 0
        harness.advance(began + LOOK_AGAIN + 0.04 - harness.now)
        assert harness.call(1) == 1

    @pytest.mark.parametrize("planted", ["now", "nearly a day ahead"])
    def test_a_slow_node_is_heard_before_one_is_believed(self, planted):
        """What one says against another may be planted: the third decides."""
        for place in range(3):
            harness = FunctionHarness(nodes=3)
            harness.call(0)
            harness.plant(FunctionHarness.NAME, PLANTED[planted], [harness.nodes[place]])
            harness.nodes[(place + 1) % 3].delay = 0.02
            assert harness.call(1) == 0
            assert (harness.computed, harness.known(1)) == (1, "")

    def test_the_first_answer_is_not_the_last(self):
        """A node that has missed a mark, and is faster than the others, does not hide it."""
        harness = FunctionHarness(nodes=3)
        harness.call(1)
        harness.owner.up = False
        assert harness.invalidate(0) is True
        harness.owner.up = True
        for node in harness.nodes:
            node.delay = ONE_WAY if node is harness.owner else 0.02
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 1

    def test_silent_nodes_delay_no_call_beyond_its_deadline(self):
        """And what is known is served, until they are ejected and nobody waits."""
        harness = FunctionHarness(nodes=6, processes=1)
        harness.call()
        for node in harness.nodes:
            node.stopped = node is not harness.owner
        for _ in range(20):
            harness.advance(LOOK_AGAIN)
            assert harness.call_seconds() <= TIMEOUT + 1e-9
        assert harness.call_seconds() <= ROUND_TRIP + 1e-9
        assert harness.computed == 1


class Machine(RuleBasedStateMachine):
    """Processes that call and invalidate while a minority of the nodes does what it likes.

    Who calls more than a second after an `invalidate_all` had returned `True`, or in the same process
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
        """Give the oldest version that a process may get now."""
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
        """Have a node of the minority say what somebody has put there."""
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


class TestTags:
    """The versions of tags."""

    def test_all_agree_on_a_new_version(self):
        """Of two who make one at once, one is faster, and both have that one's."""
        harness = FunctionHarness()
        works = [tags.versions(process.cluster, ["t"]) for process in harness.processes]
        tasks = [harness.start(work, place) for place, work in enumerate(works)]
        harness.advance(1.0)
        assert tasks[0].result == tasks[1].result
        assert tasks[0].result == [harness.node.held(TAG)[0][1]]

    @pytest.mark.parametrize("odd", [b"", b"seven b", b"nine byte"])
    def test_what_is_no_version_makes_none(self, odd):
        """Somebody else's value in its place: nothing with this tag is kept."""
        harness = FunctionHarness()
        harness.node.store.execute(Set(TAG, (MARK_FLAGS, odd)))
        assert harness.run(tags.versions(harness.processes[0].cluster, ["t"])) is None

    def test_a_node_that_fails_leaves_no_tag_known(self):
        """Not even those of other nodes: a value has all of its tags, or is not kept."""
        harness = FunctionHarness()
        harness.node.up = False
        assert harness.run(tags.versions(harness.processes[0].cluster, ["t"])) is None
        assert harness.run(tags.versions(harness.processes[0].cluster, [])) == []
