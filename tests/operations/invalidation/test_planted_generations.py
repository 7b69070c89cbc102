"""`True` means that a generation is in force; what an attacker plants ends nothing."""

from __future__ import annotations

import pytest

from operations.cached_harness import PLANTED, FunctionHarness
from operations.harness import ON_THE_WAY, ONE_WAY, ROUND_TRIP
from operations.simulation import TIMEOUT
from shardcache.core.commands import Set
from shardcache.core.reserved_keys import MARKS
from shardcache.operations.invalidation.generations import LOOK_AGAIN

DAY = 24 * 3600.0


class TestTruth:
    """`True` means that a generation is in force; a planted one ends nothing."""

    @pytest.mark.slow
    @pytest.mark.parametrize("nodes", [3, 5])
    @pytest.mark.parametrize("key", [MARKS, FunctionHarness.NAME])
    @pytest.mark.parametrize("planted", PLANTED)
    @pytest.mark.parametrize("begun", [False, True])
    def test_one_planted_node_invalidates_nothing(self, nodes, key, planted, begun):
        """Running and new processes ignore it, and do not copy it to other nodes."""
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
    def test_the_next_invalidation_overrides_planted_nodes(self, nodes, key, planted):
        """`invalidate_all` is in force for all processes, whatever every node had."""
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
    def test_false_while_a_majority_is_down(self, silent):
        """When the nodes are back, the next `invalidate_all` is in force."""
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
    def test_false_when_a_minority_stores_the_mark_or_the_name(self, key):
        """A generation needs a moved mark on a majority, and its name too."""
        harness = FunctionHarness(nodes=3)
        harness.call(0)
        for node in harness.nodes[:2]:

            def stubborn(command, execute=node.store.execute):
                refused = type(command) is Set and command.key == key
                return False if refused else execute(command)

            node.store.execute = stubborn
        assert harness.invalidate(0) is False

    def test_a_generation_that_was_not_stored_is_not_used(self):
        """`invalidate_all` returns `False`, and the process keeps the generation of the others."""
        harness = FunctionHarness()
        harness.invalidate()
        (kept,) = harness.kept
        harness.node.up = False
        assert harness.invalidate() is False
        assert harness.known() == kept

    def test_a_generation_of_a_fast_clock_hides_no_later_one(self):
        """A machine whose clock is ahead does not block the invalidations of others."""
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

    def test_a_half_moved_mark_is_read_again(self):
        """Generations that were read with it may be older than the mark."""
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

    def test_the_second_between_looks_begins_with_the_question(self):
        """An invalidation while an answer is on its way is seen a second later."""
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
    def test_a_third_node_decides_between_two(self, planted):
        """What one node says against another may be planted."""
        for place in range(3):
            harness = FunctionHarness(nodes=3)
            harness.call(0)
            harness.plant(FunctionHarness.NAME, PLANTED[planted], [harness.nodes[place]])
            harness.nodes[(place + 1) % 3].delay = 0.02
            assert harness.call(1) == 0
            assert (harness.computed, harness.known(1)) == (1, "")

    def test_a_fast_node_that_missed_a_mark_does_not_hide_it(self):
        """A slower node has the moved mark."""
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
        """The known generation is served until the silent nodes are ejected."""
        harness = FunctionHarness(nodes=6, processes=1)
        harness.call()
        for node in harness.nodes:
            node.stopped = node is not harness.owner
        for _ in range(20):
            harness.advance(LOOK_AGAIN)
            assert harness.call_seconds() <= TIMEOUT + 1e-9
        assert harness.call_seconds() <= ROUND_TRIP + 1e-9
        assert harness.computed == 1
