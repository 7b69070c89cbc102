"""Tags and generations in a world of virtual time: what many processes agree on, whoever fails."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from operations.simulation import GRACE, TIMEOUT, Process, SimulatedNode, World
from shardcache.clients.function_cache import FunctionCache
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Delete, Get, GetMany, Gets, Set
from shardcache.core.generations import (
    current_generation,
    is_decided,
    next_generation,
    parse_generation,
)
from shardcache.core.leases import quorum
from shardcache.core.reserved_keys import GENERATIONS, MARKS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.operations.invalidation import tags
from shardcache.operations.invalidation.generations import LOOK_AGAIN

FUNCTION = "reports"
NAME = GENERATIONS + b"reports:0"
TAG = tags.TAGS + b"t"
ROUND_TRIP = 0.002  # seconds, of a simulated node
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


class Scene:
    """Nodes, and processes that cache one function, whose source has a version."""

    def __init__(self, nodes=1, processes=2, skews=()):
        self.world = World()
        self.nodes = [SimulatedNode(self.world) for _ in range(nodes)]
        self.node = self.nodes[0]
        self.version = 0
        self.computed = 0
        self.processes = []
        self.functions = []
        for _, skew in itertools.zip_longest(range(processes), skews, fillvalue=0.0):
            self.add(skew)

    def add(self, skew=0.0):
        """Start one more process; give its number."""
        process = Process(self.world, self.nodes, skew=skew)

        def reports():
            self.computed += 1
            return self.version

        keys = KeyBuilder(reports, KeySpec(namespace=FUNCTION))
        policy = CachePolicy(ttl=None)
        self.processes.append(process)
        self.functions.append(FunctionCache(lambda: process.caches, reports, policy, keys))
        return len(self.processes) - 1

    def start(self, work, place=0):
        """Begin an operation of a process."""
        return self.processes[place].run(work)

    def do(self, work, place=0):
        """Run an operation to its end, and what it has begun beside itself."""
        task = self.start(work, place)
        self.world.advance(5.0, lambda: task.done)
        self.world.advance(0.02)
        assert task.error is None
        return task.result

    def call(self, place=0):
        """Have a process call the function; give what it gets."""
        return self.do(self.functions[place].value((), {}), place)

    def invalidate(self, place=0):
        """Change the source, then have a process invalidate all; give whether that is in force."""
        self.version += 1
        return self.do(self.functions[place].invalidate_all(), place)

    def seconds(self, place=0):
        """Give how long a call of a process takes."""
        began = self.world.now
        task = self.start(self.functions[place].value((), {}), place)
        self.world.advance(5.0, lambda: task.done)
        assert task.error is None
        return self.world.now - began

    def known(self, place=0):
        """Give the generation that a process knows of."""
        return self.processes[place].generations["reports:0"].name

    @property
    def owner(self):
        """Give the node of the value that is stored while nothing was invalidated."""
        cluster = self.processes[0].cluster
        return cluster.route(self.functions[0]._keys.key((), {}, ""))[1].backend

    @property
    def kept(self):
        """Give the generation that each node keeps."""
        held = [node.held(NAME) for node in self.nodes]
        return [None if each is None else each[0][1].decode() for each in held]

    def plant(self, key, payload, nodes):
        """Put something under a key of some nodes."""
        for node in nodes:
            node.store.execute(Set(key, payload))

    def log(self):
        """Write down what the nodes are asked from now on; give the list."""
        asked = []
        for node in self.nodes:

            def heard(command, execute=node.store.execute):
                asked.append(command)
                return execute(command)

            node.store.execute = heard
        return asked


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
            assert current_generation(names, nodes) >= told[quorum(nodes) - 1]

    @given(st.lists(st.sampled_from("123456"), min_size=3, max_size=5))
    def test_a_minority_s_word_is_not_believed(self, names):
        """When all are heard, no fewer than half of them can say what no other node has."""
        if len(names) % 2:
            wanted = quorum(len(names))
            assert current_generation(names, len(names)) == sorted(names, reverse=True)[wanted - 1]
            assert is_decided(names, len(names))

    @given(st.lists(st.sampled_from("1234"), min_size=1, max_size=5), st.sampled_from([3, 5]))
    def test_what_is_decided_stays(self, names, nodes):
        """Whatever the nodes say that were not heard yet."""
        if len(names) <= nodes and is_decided(names, nodes):
            for more in itertools.product(["", "2", "9"], repeat=nodes - len(names)):
                assert current_generation([*names, *more], nodes) == current_generation(
                    names, nodes
                )

    @given(st.floats(0, 10**10), st.floats(-DAY + 1, DAY - 1), st.binary(min_size=2, max_size=2))
    def test_a_new_one_is_believed_and_newer(self, wall, skew, chance):
        """By all whose clocks differ by less than a day, also after one of theirs."""
        first = next_generation([""], [], max(0.0, wall + skew), chance)
        assert parse_generation((MARK_FLAGS, first.encode()), wall) == first
        second = next_generation(["", first], [], wall, chance)
        assert second > first
        assert parse_generation((MARK_FLAGS, second.encode()), wall) == second


class TestGenerations:
    """The generation of one function's values."""

    def test_all_come_to_know_it(self):
        """The caller at once, others with their first call after a second."""
        scene = Scene(nodes=3)
        assert [scene.call(0), scene.call(1)] == [0, 0]
        assert scene.invalidate(0) is True
        assert scene.call(0) == 1
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(1) == 1
        assert scene.computed == 2

    @pytest.mark.parametrize("rest", [LOOK_AGAIN + 0.001, 1.5, 2.5, 3600.0])
    def test_a_call_after_any_rest_waits_for_one_round_trip(self, rest):
        """The mark is looked at along with the read."""
        scene = Scene(nodes=5)
        scene.call()
        scene.world.advance(rest)
        assert scene.seconds() == pytest.approx(ROUND_TRIP)

    @pytest.mark.parametrize("silent", list(itertools.combinations(range(5), 2)))
    def test_it_does_not_wait_for_a_silent_minority(self, silent):
        """But for a moment; nor does a process that starts then, nor one that invalidates."""
        scene = Scene(nodes=5, processes=3)
        scene.call()
        for place in silent:
            scene.nodes[place].stopped = True
        scene.world.advance(2.0)
        if not scene.owner.stopped:
            assert scene.seconds() <= ROUND_TRIP + GRACE + 1e-9
            assert scene.seconds(1) <= ROUND_TRIP + GRACE + 1e-9
        began = scene.world.now
        task = scene.start(scene.functions[2].invalidate_all(), 2)
        scene.world.advance(5.0, lambda: task.done)
        assert task.result is True
        assert scene.world.now - began < TIMEOUT / 4

    def test_a_new_process_knows_it_before_its_first_hit(self):
        """In one round trip when nothing was ever invalidated, in two when something was."""
        scene = Scene(nodes=5, processes=3)
        scene.call(0)
        assert scene.seconds(1) == pytest.approx(ROUND_TRIP)
        scene.invalidate(0)
        scene.call(0)
        began = scene.world.now
        task = scene.start(scene.functions[2].value((), {}), 2)
        scene.world.advance(1.0, lambda: task.done)
        assert task.result == 1
        assert scene.world.now - began == pytest.approx(2 * ROUND_TRIP)
        assert scene.computed == 2

    def test_nodes_are_asked_once_a_second(self):
        """With one command each, for the mark alone; and with none while nobody calls."""
        scene = Scene(nodes=3, processes=1)
        scene.call()
        asked = scene.log()
        for _ in range(50):
            scene.call()
            scene.world.advance(0.1)
        looks = [command for command in asked if type(command) is GetMany]
        assert {tuple(look.keys) for look in looks} == {(MARKS,)}
        assert 3 * 5 <= len(looks) <= 3 * 7
        assert all(type(command) in {Get, GetMany} for command in asked)
        asked.clear()
        scene.world.advance(3600.0)
        assert asked == []

    def test_functions_share_one_look(self):
        """Of a hundred functions one looks at the mark, and none at its generation."""
        scene = Scene(nodes=3, processes=1)
        process = scene.processes[0]
        functions = [
            FunctionCache(
                lambda: process.caches,
                scene.functions[0].function,
                CachePolicy(ttl=None),
                KeyBuilder(scene.functions[0].function, KeySpec(namespace=f"f{number}")),
            )
            for number in range(100)
        ]
        for function in functions:
            scene.do(function.value((), {}))
        scene.world.advance(10.0)
        asked = scene.log()
        tasks = [scene.start(function.value((), {})) for function in functions[:1]]
        scene.world.advance(0.1)
        tasks += [scene.start(function.value((), {})) for function in functions]
        scene.world.advance(0.1)
        assert all(task.done for task in tasks)
        assert sum(type(command) is GetMany for command in asked) == 3
        assert sum(type(command) is Get for command in asked) == 101

    def test_an_unmoved_mark_spares_the_generations(self):
        """They are read when it has moved, by each process once, and those of others too."""
        scene = Scene(nodes=3)
        scene.call(0)
        scene.call(1)
        scene.invalidate(0)
        scene.world.advance(2.0)
        asked = scene.log()
        assert scene.call(1) == 1
        read = [tuple(command.keys) for command in asked if type(command) is GetMany]
        assert read == [(MARKS,)] * 3 + [(NAME,)] * 3  # of the first generation nothing is kept

    def test_what_was_asked_before_a_renewal_says_nothing(self):
        """A reply that comes later than the new generation does not bring the old one back."""
        scene = Scene()
        scene.invalidate()
        scene.world.advance(2 * LOOK_AGAIN)
        scene.processes[0].generations.epoch = object()
        looking = scene.start(scene.functions[0].key_for((), {}))
        scene.world.advance(0.0005)
        scene.node.delay = 0.05  # of the reply
        scene.world.advance(0.001)
        scene.node.delay = 0.001
        assert scene.invalidate() is True
        assert not looking.done
        scene.world.advance(0.1, lambda: looking.done)
        assert [scene.known()] == scene.kept
        assert looking.result == scene.do(scene.functions[0].key_for((), {}))

    def test_a_read_of_an_old_generation_is_void(self):
        """A look that comes back with another generation has the value read anew."""
        scene = Scene(nodes=3)
        assert [scene.call(0), scene.call(1)] == [0, 0]
        scene.invalidate(0)
        assert scene.call(0) == 1
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(1) == 1
        assert scene.computed == 2  # that of the other process is found

    @pytest.mark.parametrize("lost", list(itertools.combinations(range(5), 2)))
    def test_two_lost_nodes_of_five_lose_nothing(self, lost):
        """Who starts later is told by the others, and tells those that lost it."""
        scene = Scene(nodes=5)
        scene.invalidate(0)
        for place in lost:
            scene.nodes[place].forget()
        scene.call(1)
        assert scene.kept == [scene.known(0)] * 5 == [scene.known(1)] * 5

    def test_nodes_that_have_lost_all_are_told(self):
        """By a process that knows, as soon as it sees that their mark is gone."""
        scene = Scene(nodes=3)
        scene.invalidate(0)
        for node in scene.nodes:
            node.forget()
        scene.world.advance(LOOK_AGAIN)
        scene.call(0)
        assert scene.kept == [scene.known(0)] * 3
        scene.call(1)
        assert scene.known(1) == scene.known(0)

    def test_one_that_was_evicted_is_put_back(self):
        """Though nothing else is lost, and nobody invalidates: it is looked at now and then."""
        scene = Scene(nodes=3)
        scene.invalidate(0)
        for node in scene.nodes:
            node.store.execute(Delete(NAME))
        scene.world.advance(LOOK_AGAIN)
        scene.call(0)
        assert scene.kept == [scene.known(0)] * 3

    @pytest.mark.parametrize("down", range(3))
    def test_one_that_missed_it_is_told(self, down):
        """A node that was away meanwhile has an older one, which nobody goes back to."""
        scene = Scene(nodes=3)
        scene.invalidate(0)
        scene.nodes[down].up = False
        assert scene.invalidate(0) is True
        scene.nodes[down].up = True
        scene.nodes[(down + 1) % 3].up = False  # of those that have it
        scene.call(1)
        assert scene.known(1) == scene.known(0)
        assert scene.kept[down] == scene.known(0)

    def test_nothing_is_put_back_over_a_newer_one(self):
        """Another may have begun one since the node was looked at."""
        scene = Scene(nodes=1)
        scene.invalidate()
        scene.node.forget()
        newest = b"%012xbeef" % 2_000_000
        execute = scene.node.store.execute

        def faster(command):
            reply = execute(command)
            if isinstance(command, Gets):
                execute(Set(NAME, (MARK_FLAGS, newest)))
            return reply

        scene.node.store.execute = faster
        scene.world.advance(2 * LOOK_AGAIN)
        scene.call()
        assert scene.kept == [newest.decode()]

    def test_a_node_never_goes_back(self):
        """Of many who invalidate at once the newest is kept, whatever comes last."""
        for seed in range(20):
            scene = Scene(nodes=3, processes=4)
            chance = scene.world.chance
            chance.seed(seed)
            tasks = []
            for place in range(4):
                for node in scene.nodes:
                    node.delay = chance.uniform(0.0005, 0.003)
                tasks.append(scene.start(scene.functions[place].invalidate_all(), place))
                scene.world.advance(chance.uniform(0, 0.005))
            scene.world.advance(1.0)
            assert all(task.result is True for task in tasks)
            assert set(scene.kept) == {max(map(scene.known, range(4)))}


class TestTruth:
    """`True` means that it is in force; what somebody planted ends nothing."""

    @pytest.mark.parametrize("nodes", [3, 5])
    @pytest.mark.parametrize("key", [MARKS, NAME])
    @pytest.mark.parametrize("planted", PLANTED)
    @pytest.mark.parametrize("begun", [False, True])
    def test_what_one_node_says_ends_nothing(self, nodes, key, planted, begun):
        """Not in a process that runs, nor in one that starts; and it is not told to others."""
        for place in range(nodes):
            scene = Scene(nodes=nodes)
            if begun:
                scene.invalidate()
            version = scene.call()
            before = scene.kept
            scene.plant(key, PLANTED[planted], [scene.nodes[place]])
            for _ in range(3):
                scene.world.advance(2.0)
                assert scene.call(0) == scene.call(1) == version
            assert scene.computed == 1
            others = [kept for at, kept in enumerate(scene.kept) if at != place]
            assert others == [kept for at, kept in enumerate(before) if at != place]
            assert scene.invalidate() is True
            assert scene.call(0) == scene.version
            scene.world.advance(LOOK_AGAIN)
            assert scene.call(1) == scene.call(scene.add()) == scene.version

    @pytest.mark.parametrize("nodes", [1, 3])
    @pytest.mark.parametrize("key", [MARKS, NAME])
    @pytest.mark.parametrize("planted", PLANTED)
    def test_what_all_nodes_say_is_recovered_from(self, nodes, key, planted):
        """The next `invalidate_all` is in force for all."""
        scene = Scene(nodes=nodes)
        scene.invalidate()
        scene.call(0)
        scene.call(1)
        scene.plant(key, PLANTED[planted], scene.nodes)
        scene.world.advance(2.0)
        assert scene.call(0) == scene.version
        scene.call(scene.add())
        assert scene.invalidate() is True
        assert scene.call(0) == scene.version
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(1) == scene.call(scene.add()) == scene.version
        assert scene.kept == [scene.known(0)] * nodes

    @pytest.mark.parametrize("silent", [False, True])
    def test_false_while_no_majority_takes_note(self, silent):
        """It is said that it was too few; once more when they are back, and it is in force."""
        scene = Scene(nodes=3)
        scene.call(1)
        for node in scene.nodes[1:]:
            node.stopped, node.up = silent, silent
        assert scene.invalidate(0) is False
        for node in scene.nodes[1:]:
            node.up = True
            node.resume()
        scene.world.advance(20.0)
        assert scene.invalidate(0) is True
        assert scene.call(0) == scene.call(scene.add()) == 2
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(1) == 2

    @pytest.mark.parametrize("key", [MARKS, NAME])
    def test_false_when_few_store_either(self, key):
        """A generation without a moved mark is seen by few, and the other way round is none."""
        scene = Scene(nodes=3)
        scene.call(0)
        for node in scene.nodes[:2]:

            def stubborn(command, execute=node.store.execute):
                refused = type(command) is Set and command.key == key
                return False if refused else execute(command)

            node.store.execute = stubborn
        assert scene.invalidate(0) is False

    def test_one_that_could_not_be_stored_is_none(self):
        """It is said, and this process goes on with the one that all others have."""
        scene = Scene()
        scene.invalidate()
        (kept,) = scene.kept
        scene.node.up = False
        assert scene.invalidate() is False
        assert scene.known() == kept

    def test_one_of_a_fast_clock_is_passed(self):
        """What another machine began in the future does not hide what is begun now."""
        scene = Scene(nodes=3, processes=3, skews=[0.9 * DAY, 0.0, 0.0])
        for place in (1, 2):
            scene.call(place)
        assert scene.invalidate(0) is True
        scene.world.advance(LOOK_AGAIN)
        assert [scene.call(place) for place in range(3)] == [1, 1, 1]
        assert scene.invalidate(1) is True
        assert scene.call(1) == 2
        scene.world.advance(LOOK_AGAIN)
        assert [scene.call(place) for place in range(3)] == [2, 2, 2]

    def test_a_look_that_saw_a_mark_half_moved_is_not_the_last(self):
        """Generations that were read along with it may be older than the mark."""
        scene = Scene(nodes=3, processes=3)
        scene.call(0)
        second, third = (node for node in scene.nodes if node is not scene.owner)
        first = scene.owner
        first.delay = 0.02  # what it is asked comes when all is over
        slow = scene.start(scene.functions[2].value((), {}), 2)
        scene.world.advance(0.0005)
        third.delay = 0.05  # of the reply, so that the first is waited for
        scene.world.advance(0.001)
        first.delay = third.delay = 0.001
        third.up = False
        assert scene.invalidate(0) is True
        scene.world.advance(5.0, lambda: slow.done)
        third.up, second.stopped = True, True
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(2) == 1

    def test_a_second_begins_with_the_question(self):
        """Who invalidates while an answer is on its way is seen a second later all the same."""
        scene = Scene(nodes=1)
        scene.call(1)
        scene.world.advance(2.0)
        began = scene.world.now
        slow = scene.start(scene.functions[1].value((), {}), 1)
        scene.world.advance(0.0005)
        scene.node.delay = 0.05  # of the reply
        scene.world.advance(0.001)
        scene.node.delay = 0.001
        assert scene.invalidate(0) is True
        scene.world.advance(1.0, lambda: slow.done)
        assert slow.result == 0
        scene.world.advance(began + LOOK_AGAIN + 0.04 - scene.world.now)
        assert scene.call(1) == 1

    @pytest.mark.parametrize("planted", ["now", "nearly a day ahead"])
    def test_a_slow_node_is_heard_before_one_is_believed(self, planted):
        """What one says against another may be planted: the third decides."""
        for place in range(3):
            scene = Scene(nodes=3)
            scene.call(0)
            scene.plant(NAME, PLANTED[planted], [scene.nodes[place]])
            scene.nodes[(place + 1) % 3].delay = 0.02
            assert scene.call(1) == 0
            assert (scene.computed, scene.known(1)) == (1, "")

    def test_the_first_answer_is_not_the_last(self):
        """A node that has missed a mark, and is faster than the others, does not hide it."""
        scene = Scene(nodes=3)
        scene.call(1)
        scene.owner.up = False
        assert scene.invalidate(0) is True
        scene.owner.up = True
        for node in scene.nodes:
            node.delay = 0.001 if node is scene.owner else 0.02
        scene.world.advance(LOOK_AGAIN)
        assert scene.call(1) == 1

    def test_silent_nodes_delay_no_call_beyond_its_deadline(self):
        """And what is known is served, until they are ejected and nobody waits."""
        scene = Scene(nodes=6, processes=1)
        scene.call()
        for node in scene.nodes:
            node.stopped = node is not scene.owner
        for _ in range(20):
            scene.world.advance(LOOK_AGAIN)
            assert scene.seconds() <= TIMEOUT + 1e-9
        assert scene.seconds() <= ROUND_TRIP + 1e-9
        assert scene.computed == 1


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
        self.scene = Scene(nodes=nodes, processes=3, skews=skews)
        self.scene.world.chance.seed(seed)
        self.minority = nodes - quorum(nodes)
        self.moving = moving  # whether nodes are away by turns, or some of them do all that is bad
        self.liars = self.scene.nodes[: self.minority]
        self.acknowledged = []  # moment, version, process
        self.under_way = []

    def floor(self, place):
        """Give the oldest version that a process may get now."""
        now = self.scene.world.now
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
        scene = self.scene
        end = scene.world.now + seconds
        while scene.world.now < end:
            waited = list(self.under_way)
            scene.world.advance(
                end - scene.world.now, lambda waited=waited: any(each[0].done for each in waited)
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
            self.acknowledged.append((self.scene.world.now, version, place))

    @rule(place=st.integers(0, 2), wait=st.floats(0.0, 0.3))
    def call(self, place, wait):
        """Call."""
        floor = self.floor(place)
        function = self.scene.functions[place]
        task = self.scene.processes[place].begin(lambda: function.value((), {}))
        self.under_way.append((task, place, None, floor))
        self.settle(wait)

    @rule(place=st.integers(0, 2), wait=st.floats(0.0, 0.3))
    def invalidate(self, place, wait):
        """Change the source and invalidate all."""
        self.scene.version += 1
        function = self.scene.functions[place]
        task = self.scene.processes[place].begin(function.invalidate_all)
        self.under_way.append((task, place, self.scene.version, 0))
        self.settle(wait)

    @rule(seconds=st.sampled_from([0.0005, 0.01, 0.5, 0.99, 1.01, 2.5]))
    def wait(self, seconds):
        """Let time pass."""
        self.settle(seconds)

    @rule(place=st.integers(0, 2))
    def restart(self, place):
        """End a process: another takes its place, which knows nothing."""
        skew = self.scene.processes[place].skew
        self.scene.processes[place].dead = True
        self.under_way = [each for each in self.under_way if each[1] != place]
        number = self.scene.add(skew)
        self.scene.processes[place] = self.scene.processes.pop(number)
        self.scene.functions[place] = self.scene.functions.pop(number)

    @rule(data=st.data(), how=st.sampled_from(["down", "stopped", "slow"]))
    def trouble(self, data, how):
        """Have some nodes away, or slow, and those that were back and asked again."""
        nodes = self.scene.nodes if self.moving else self.liars
        away = data.draw(st.permutations(nodes))[: self.minority]
        self.recover()
        for node in away:
            node.up, node.stopped = how != "down", how == "stopped"
            node.delay = 0.03 if how == "slow" else 0.001

    def recover(self):
        """Have all nodes back, and wait until each process asks them again."""
        for node in self.scene.nodes:
            node.up, node.delay = True, 0.001
            node.resume()
        while any(
            member.health.ejected
            for process in self.scene.processes
            for member in process.cluster.members.values()
        ):
            self.settle(0.5)

    @precondition(lambda self: not self.moving)
    @rule(
        data=st.data(),
        key=st.sampled_from([MARKS, NAME]),
        payload=st.sampled_from(list(PLANTED.values())),
    )
    def plant(self, data, key, payload):
        """Have a node of the minority say what somebody has put there."""
        if self.liars:
            self.scene.plant(key, payload, [data.draw(st.sampled_from(self.liars))])

    @precondition(lambda self: not self.moving)
    @rule(data=st.data())
    def forget(self, data):
        """Have a node of the minority lose all."""
        if self.liars:
            data.draw(st.sampled_from(self.liars)).forget()

    def teardown(self):
        """When all is well again all processes get the newest."""
        if not hasattr(self, "scene"):
            return
        self.settle(5.0)
        assert not self.under_way
        self.recover()
        self.scene.world.advance(2 * LOOK_AGAIN)
        for place in range(3):
            assert self.scene.call(place) >= self.floor(place)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class TestTags:
    """The versions of tags."""

    def test_all_agree_on_a_new_version(self):
        """Of two who make one at once, one is faster, and both have that one's."""
        scene = Scene()
        works = [tags.versions(process.cluster, ["t"]) for process in scene.processes]
        tasks = [scene.start(work, place) for place, work in enumerate(works)]
        scene.world.advance(1.0)
        assert tasks[0].result == tasks[1].result
        assert tasks[0].result == [scene.node.held(TAG)[0][1]]

    @pytest.mark.parametrize("odd", [b"", b"seven b", b"nine byte"])
    def test_what_is_no_version_makes_none(self, odd):
        """Somebody else's value in its place: nothing with this tag is kept."""
        scene = Scene()
        scene.node.store.execute(Set(TAG, (MARK_FLAGS, odd)))
        assert scene.do(tags.versions(scene.processes[0].cluster, ["t"])) is None

    def test_a_node_that_fails_leaves_no_tag_known(self):
        """Not even those of other nodes: a value has all of its tags, or is not kept."""
        scene = Scene()
        scene.node.up = False
        assert scene.do(tags.versions(scene.processes[0].cluster, ["t"])) is None
        assert scene.do(tags.versions(scene.processes[0].cluster, [])) == []
