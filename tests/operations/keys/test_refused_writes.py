"""What is done with one key and with many, where a node refuses or a key is named twice."""

from __future__ import annotations

import pytest

from operations.simulation import Process, SimulatedNode, World
from shardcache.core.commands import Cas, GetMany, Set, SetMany, When
from shardcache.core.lifetimes import DEFAULT
from shardcache.errors import NodeRefusedError
from shardcache.operations.keys import many, single

REFUSED = NodeRefusedError("out of memory")


class Scene:
    """One process, one node, and what it is asked."""

    def __init__(self):
        self.world = World()
        self.node = SimulatedNode(self.world)
        self.process = Process(self.world, [self.node])
        self.cluster = self.process.cluster
        self.commands = []
        self.refuses = ()  # commands of these types are answered with a no
        self._execute = self.node.store.execute
        self.node.store.execute = self._executed

    def _executed(self, command):
        self.commands.append(command)
        if not isinstance(command, self.refuses):
            return self._execute(command)
        if isinstance(command, SetMany):
            first, *others = command.items
            del first
            return [REFUSED, *self._execute(SetMany(others, command.ttl))]
        return REFUSED

    def do(self, work):
        """Run an operation to its end."""
        task = self.process.run(work)
        self.world.advance(5.0, lambda: task.done)
        if task.error is not None:
            raise task.error
        return task.result

    def store(self, value, ttl=None, when=When.ALWAYS):
        """Store the key."""
        return self.do(single.store(self.cluster, "k", value, ttl, when))

    def get(self):
        """Give the value of the key."""
        return self.do(single.get(self.cluster, "k", None))


@pytest.mark.parametrize("when", [When.ALWAYS, When.PRESENT])
def test_a_refused_overwrite_leaves_nothing_old(when):
    """What was to be replaced must not be read any more: not every server drops it by itself."""
    scene = Scene()
    scene.store("old")
    scene.refuses = (Set,)
    assert scene.store("new", when=when) is False
    assert scene.get() is None


def test_a_refused_cas_leaves_nothing_old():
    """The same holds for a value that was to be stored if nobody had changed the key."""
    scene = Scene()
    scene.store("old")
    _, token = scene.do(single.gets(scene.cluster, "k", None))
    scene.refuses = (Cas,)
    assert scene.do(single.cas(scene.cluster, "k", "new", token, None)) is False
    assert scene.get() is None


def test_a_refused_add_takes_nothing_away():
    """It was to be stored only where nothing is: whatever is there is another's."""
    scene = Scene()
    scene.store("another's")
    scene.refuses = (Set,)
    assert scene.store("new", when=When.ABSENT) is False
    assert scene.get() == "another's"


def test_of_a_batch_what_was_refused_leaves_nothing_old():
    """And what was stored stays."""
    scene = Scene()
    scene.do(many.set_many(scene.cluster, {"a": 1, "b": 1}, None))
    scene.refuses = (SetMany,)
    assert scene.do(many.set_many(scene.cluster, {"a": 2, "b": 2}, None)) == ["a"]
    assert scene.do(many.get_many(scene.cluster, ["a", "b"])) == {"b": 2}


def test_a_key_that_is_named_twice_is_asked_once():
    """Each value that was found is one hit."""
    scene = Scene()
    scene.store("found")
    keys = ["k", "missing", "k", "missing", "k"]
    assert scene.do(many.get_many(scene.cluster, keys)) == {"k": "found"}
    (asked,) = [command for command in scene.commands if isinstance(command, GetMany)]
    assert list(asked.keys) == [b"k", b"missing"]
    (member,) = scene.cluster.members.values()
    assert (member.hits, member.misses) == (1, 1)


@pytest.mark.parametrize(
    ("there", "when", "done"),
    [
        (True, When.ALWAYS, True),
        (False, When.ALWAYS, True),
        (True, When.PRESENT, True),
        (False, When.PRESENT, False),
        (True, When.ABSENT, False),
        (False, When.ABSENT, True),
    ],
)
def test_storing_for_no_time_answers_as_storing_does(there, when, done):
    """What it says does not depend on how long the value was to live; nothing new is left."""
    scene = Scene()
    if there:
        scene.store("old")
    assert scene.store("new", 0.0, when) is done
    assert scene.get() == ("old" if there and when is When.ABSENT else None)


@pytest.mark.parametrize(
    ("initial", "error"), [(-1, ValueError), (2**63, ValueError), (1.0, TypeError)]
)
def test_a_counter_begins_with_what_it_can_hold(initial, error):
    """A number that no server counts is refused before anybody is asked."""
    scene = Scene()
    with pytest.raises(error, match="initial"):
        scene.do(single.incr(scene.cluster, "k", 1, initial, DEFAULT))
    assert scene.commands == []
