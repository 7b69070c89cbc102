"""Tags and generations in a world of virtual time: what many processes agree on, whoever fails."""

from __future__ import annotations

import pytest

from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import Get, Set
from shardcache.core.payloads import RAW_FLAGS
from shardcache.operations import tags
from shardcache.operations.generations import GENERATIONS, LOOK_AGAIN, Generation

FUNCTION = "reports"
NAME = GENERATIONS + FUNCTION.encode()
TAG = tags.TAGS + b"t"


class Scene:
    """One node, and two processes that know of one function."""

    def __init__(self):
        self.world = World()
        self.node = SimulatedNode(self.world)
        self.processes = [Process(self.world, [self.node]) for _ in range(2)]
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

    def test_nothing_is_put_back_over_a_newer_one(self):
        """Another may have begun one since the node was looked at."""
        scene = Scene()
        scene.renew()
        scene.node.forget()
        execute = scene.node.store.execute

        def faster(command):
            reply = execute(command)
            if isinstance(command, Get):
                execute(Set(NAME, (RAW_FLAGS, b"newer")))
            return reply

        scene.node.store.execute = faster
        scene.world.advance(2 * LOOK_AGAIN)
        scene.look()
        assert scene.kept == "newer"

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
