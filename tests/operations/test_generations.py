"""Tags and generations in a world of virtual time: what many processes agree on, whoever fails."""

from __future__ import annotations

import itertools

import pytest

from operations.simulation import TIMEOUT, Process, SimulatedNode, World
from shardcache.core.commands import Gets, Set
from shardcache.core.payloads import RAW_FLAGS
from shardcache.operations import tags
from shardcache.operations.generations import GENERATIONS, LOOK_AGAIN, Generation
from shardcache.operations.port import Landing

FUNCTION = "reports"
NAME = GENERATIONS + FUNCTION.encode()
TAG = tags.TAGS + b"t"
OLDER, NEWER = "0" * 16, "f" * 16


class Scene:
    """Nodes, and two processes that know of one function; `node` is the first of many."""

    def __init__(self, nodes=1):
        self.world = World()
        self.nodes = [SimulatedNode(self.world) for _ in range(nodes)]
        self.node = self.nodes[0]
        self.processes = [Process(self.world, self.nodes) for _ in range(2)]
        self.generations = [Generation(FUNCTION) for _ in range(2)]

    def start(self, work, place=0):
        """Begin an operation of a process."""
        return self.processes[place].run(work)

    def do(self, work, place=0):
        """Run an operation to its end, and what it has begun beside itself."""
        task = self.start(work, place)
        self.world.advance(5.0, lambda: task.done)
        self.world.advance(0.01)
        assert task.error is None
        return task.result

    def look(self, place=0):
        """Have a process look which generation there is; give what it knows then."""
        self.do(self.generations[place].look(self.processes[place].cluster), place)
        return self.generations[place].name

    def renew(self, place=0):
        """Have a process begin a new one; give whether it has."""
        return self.do(self.generations[place].renew(self.processes[place].cluster), place)

    @property
    def kept(self):
        """Give the generation that the node keeps."""
        held = self.node.held(NAME)
        return None if held is None else held[0][1].decode()


class TestGenerations:
    """The generation of one function's values."""

    def test_all_come_to_know_it(self):
        """At the first call, and about a second after it was changed by another."""
        scene = Scene()
        assert [scene.look(0), scene.look(1)] == ["", ""]
        assert scene.renew(0) is True
        name = scene.generations[0].name
        assert name == scene.kept != ""
        scene.world.advance(LOOK_AGAIN)
        scene.look(1)
        assert scene.look(1) == name

    def test_what_was_asked_before_a_renewal_says_nothing(self):
        """A reply that comes later than the new generation does not bring the old one back."""
        scene = Scene()
        scene.renew()
        scene.world.advance(2 * LOOK_AGAIN)
        looking = scene.start(scene.generations[0].look(scene.processes[0].cluster))
        scene.world.advance(0.0005)
        scene.node.delay = 0.05  # of the reply
        scene.world.advance(0.001)
        scene.node.delay = 0.001
        assert scene.renew() is True
        assert not looking.done
        name = scene.generations[0].name
        scene.world.advance(0.1, lambda: looking.done)
        assert scene.generations[0].name == name == scene.kept

    def test_a_node_that_has_lost_it_is_told(self):
        """Who knows better puts it back, so that those who start later do not see the first."""
        scene = Scene()
        scene.renew(0)
        name = scene.kept
        scene.node.forget()
        scene.world.advance(2 * LOOK_AGAIN)
        assert scene.look(0) == name
        assert scene.kept == name
        assert scene.look(1) == name

    @pytest.mark.parametrize("lost", [True, False])
    def test_nothing_is_put_back_over_a_newer_one(self, lost):
        """Another may have begun one since the node was looked at."""
        scene = Scene()
        scene.renew()
        if lost:
            scene.node.forget()
        else:
            scene.node.store.execute(Set(NAME, (RAW_FLAGS, OLDER.encode())))
        execute = scene.node.store.execute

        def faster(command):
            reply = execute(command)
            if isinstance(command, Gets):
                execute(Set(NAME, (RAW_FLAGS, NEWER.encode())))
            return reply

        scene.node.store.execute = faster
        scene.world.advance(2 * LOOK_AGAIN)
        scene.look()
        assert scene.kept == NEWER

    def test_what_could_not_be_looked_up_is_due(self):
        """When all threads are busy the next call tries again, and not one of a second later."""
        scene = Scene()
        scene.look(1)
        scene.renew(0)
        scene.world.advance(LOOK_AGAIN)
        io = scene.processes[1].cluster.io
        offer, io.offer = io.offer, lambda *_: False
        assert scene.look(1) == ""
        io.offer = offer
        assert scene.look(1) == scene.kept

    @pytest.mark.parametrize("stopped", list(itertools.combinations(range(5), 2)))
    def test_two_stopped_nodes_of_five_delay_nobody(self, stopped):
        """Neither who looks for the first time nor who begins a new one."""
        scene = Scene(nodes=5)
        scene.renew(0)
        for place in stopped:
            scene.nodes[place].stopped = True
        began = scene.world.now
        look = scene.start(scene.generations[1].look(scene.processes[1].cluster), 1)
        scene.world.advance(5.0, lambda: look.done)
        renewal = scene.start(scene.generations[1].renew(scene.processes[1].cluster), 1)
        scene.world.advance(5.0, lambda: renewal.done)
        assert renewal.result is True
        assert scene.world.now - began < TIMEOUT / 4

    @pytest.mark.parametrize("lost", list(itertools.combinations(range(5), 2)))
    def test_two_lost_nodes_of_five_lose_nothing(self, lost):
        """Who starts later is told by the others, and tells those that lost it."""
        scene = Scene(nodes=5)
        scene.renew(0)
        name = scene.generations[0].name
        for place in lost:
            scene.nodes[place].forget()
        assert scene.look(1) == name != ""
        assert [node.held(NAME)[0][1].decode() for node in scene.nodes] == [name] * 5

    def test_nodes_that_know_are_asked_once_a_second(self):
        """And told nothing."""
        scene = Scene(nodes=3)
        scene.renew(0)
        asked = []
        for node in scene.nodes:

            def heard(command, execute=node.store.execute):
                asked.append(type(command))
                return execute(command)

            node.store.execute = heard
        for _ in range(5):
            scene.start(scene.generations[1].look(scene.processes[1].cluster), 1)
            scene.world.advance(0.1)
        assert asked == [Gets] * 3
        scene.world.advance(LOOK_AGAIN)
        scene.look(1)
        assert asked == [Gets] * 6

    @pytest.mark.parametrize("landing", list(Landing))
    def test_who_waited_for_another_in_vain_asks_alone(self, landing):
        """A look that was stopped, or is late, tells its waiters nothing."""
        scene = Scene()
        scene.renew(0)

        async def fly(*_, **__):
            return landing, False

        scene.processes[1].cluster.io.flights.fly = fly
        assert scene.look(1) == scene.kept

    def test_one_that_missed_it_is_told(self):
        """A node that was stopped meanwhile has an older one, which nobody goes back to."""
        scene = Scene(nodes=3)
        scene.renew(0)
        scene.nodes[2].up = False
        assert scene.renew(0) is True
        name = scene.generations[0].name
        scene.nodes[2].up = True
        assert scene.look(1) == name
        assert [node.held(NAME)[0][1].decode() for node in scene.nodes] == [name] * 3

    def test_one_is_newer_than_that_of_a_fast_clock(self):
        """What another machine began in the future does not hide what is begun now."""
        scene = Scene(nodes=3)
        future = f"{int(scene.world.now * 1000) + 10**9:012x}ffff"
        for node in scene.nodes:
            node.store.execute(Set(NAME, (RAW_FLAGS, future.encode())))
        assert scene.renew(0) is True
        assert scene.generations[0].name > future
        assert scene.look(1) == scene.generations[0].name

    def test_what_is_no_generation_is_none(self):
        """Somebody else's value in its place is replaced by the next one."""
        scene = Scene()
        scene.node.store.execute(Set(NAME, (RAW_FLAGS, b"zzz")))
        assert scene.look(1) == ""
        assert scene.renew(0) is True
        assert scene.kept == scene.generations[0].name

    def test_one_that_few_have_noted_is_found_all_the_same(self):
        """It is said that it was too few; but whoever hears of it goes on with it."""
        scene = Scene(nodes=3)
        scene.nodes[1].up = scene.nodes[2].up = False
        assert scene.renew(0) is False
        name = scene.generations[0].name
        assert name != ""
        scene.nodes[1].up = scene.nodes[2].up = True
        assert scene.look(1) == name

    def test_one_that_could_not_be_stored_is_none(self):
        """It is said, and this process goes on with the one that all others have."""
        scene = Scene()
        scene.renew()
        name = scene.kept
        scene.node.up = False
        assert scene.renew() is False
        assert scene.generations[0].name == name


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
        scene.node.store.execute(Set(TAG, (RAW_FLAGS, odd)))
        assert scene.do(tags.versions(scene.processes[0].cluster, ["t"])) is None

    def test_a_node_that_fails_leaves_no_tag_known(self):
        """Not even those of other nodes: a value has all of its tags, or is not kept."""
        scene = Scene()
        scene.node.up = False
        assert scene.do(tags.versions(scene.processes[0].cluster, ["t"])) is None
        assert scene.do(tags.versions(scene.processes[0].cluster, [])) == []
