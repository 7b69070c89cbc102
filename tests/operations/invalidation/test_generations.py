"""The generation of a function's values: what many processes agree on, whichever nodes fail."""

from __future__ import annotations

import itertools

import pytest

from operations.cached_harness import FunctionHarness
from operations.harness import ON_THE_WAY, ONE_WAY, ROUND_TRIP
from operations.simulated_io import GRACE
from operations.simulation import TIMEOUT
from shardcache.clients.function_cache import FunctionCache
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Delete, Get, GetMany, Gets, Set
from shardcache.core.keys import KeySpace
from shardcache.core.placement.nodes import Node
from shardcache.core.reserved_keys import MARKS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation.generations import LOOK_AGAIN, Generations


class TestGenerations:
    """The generation of one function's values."""

    def test_every_process_learns_a_new_generation(self):
        """The process that invalidates at once, others with their first call after a second."""
        harness = FunctionHarness(nodes=3)
        assert [harness.call(0), harness.call(1)] == [0, 0]
        assert harness.invalidate(0) is True
        assert harness.call(0) == 1
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 1
        assert harness.computed == 2

    @pytest.mark.parametrize("rest", [LOOK_AGAIN + 0.001, 1.5, 2.5, 3600.0])
    def test_a_call_after_any_pause_takes_one_round_trip(self, rest):
        """It reads the mark together with the value."""
        harness = FunctionHarness(nodes=5)
        harness.call()
        harness.advance(rest)
        assert harness.call_seconds() == pytest.approx(ROUND_TRIP)

    @pytest.mark.parametrize("silent", list(itertools.combinations(range(5), 2)))
    def test_a_silent_minority_is_not_awaited(self, silent):
        """A call, a new process and an invalidation wait for a moment at most."""
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

    def test_a_new_process_knows_the_generation_before_its_first_hit(self):
        """It takes one round trip when nothing was ever invalidated, and two when something was."""
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
        """One command each, for the mark alone; none while no process calls."""
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

    def test_a_hundred_functions_read_the_mark_once(self):
        """One of them reads the mark, and none its generation."""
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

    def test_generations_are_read_only_when_the_mark_has_moved(self):
        """Each process reads them once, those of other functions too."""
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

    def test_a_reply_from_before_an_invalidation_is_ignored(self):
        """A reply that comes after the new generation does not bring the old one back."""
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

    def test_a_value_read_with_an_old_generation_is_read_again(self):
        """The mark came with another generation than the read used."""
        harness = FunctionHarness(nodes=3)
        assert [harness.call(0), harness.call(1)] == [0, 0]
        harness.invalidate(0)
        assert harness.call(0) == 1
        harness.advance(LOOK_AGAIN)
        assert harness.call(1) == 1
        assert harness.computed == 2  # that of the other process is found

    @pytest.mark.parametrize("lost", list(itertools.combinations(range(5), 2)))
    def test_two_lost_nodes_of_five_lose_no_generation(self, lost):
        """A process that starts later hears it from the others, and writes it back."""
        harness = FunctionHarness(nodes=5)
        harness.invalidate(0)
        for place in lost:
            harness.nodes[place].forget()
        harness.call(1)
        assert harness.kept == [harness.known(0)] * 5 == [harness.known(1)] * 5

    def test_nodes_that_lost_everything_get_the_generation_back(self):
        """A process that knows it writes it when it finds the mark gone."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        for node in harness.nodes:
            node.forget()
        harness.advance(LOOK_AGAIN)
        harness.call(0)
        assert harness.kept == [harness.known(0)] * 3
        harness.call(1)
        assert harness.known(1) == harness.known(0)

    def test_an_evicted_generation_is_put_back(self):
        """A process checks it now and then, though no mark is lost and nothing is invalidated."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        for node in harness.nodes:
            node.store.execute(Delete(FunctionHarness.NAME))
        harness.advance(LOOK_AGAIN)
        harness.call(0)
        assert harness.kept == [harness.known(0)] * 3

    @pytest.mark.parametrize("down", range(3))
    def test_a_node_that_missed_an_invalidation_gets_it(self, down):
        """A node that was away has an older generation, which no process goes back to."""
        harness = FunctionHarness(nodes=3)
        harness.invalidate(0)
        harness.nodes[down].up = False
        assert harness.invalidate(0) is True
        harness.nodes[down].up = True
        harness.nodes[(down + 1) % 3].up = False  # of those that have it
        harness.call(1)
        assert harness.known(1) == harness.known(0)
        assert harness.kept[down] == harness.known(0)

    def test_nothing_is_put_back_over_a_newer_generation(self):
        """Another process may have invalidated since the node was read."""
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

    def test_a_node_never_returns_to_an_older_generation(self):
        """Of many processes that invalidate at once the newest stays, whichever writes last."""
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


@pytest.mark.parametrize(("mark", "moved"), [(None, False), ((MARK_FLAGS, b"2"), True)])
def test_a_node_heard_for_the_first_time_moves_nothing_by_itself(mark, moved):
    """Functions look up their generations again only if its mark is not that of the other nodes."""
    generations = Generations(KeySpace())
    first, second, late = members = [Member(Node(f"memory://{name}"), None) for name in "abc"]
    generations._note_marks(members, {first: (None,), second: (None,)})
    epoch = generations.epoch
    generations._note_marks(members, {first: (None,), second: (None,), late: (mark,)})
    assert (generations.epoch is not epoch) == moved
