"""Calls for one key and for many, where a node refuses or a key is named twice."""

from __future__ import annotations

import pytest

from operations.harness import Harness
from shardcache.core.commands import Cas, GetMany, Set, SetMany, When
from shardcache.errors import NodeRefusedError
from shardcache.operations.keys import many, single

REFUSED = NodeRefusedError("out of memory")


class KeyHarness(Harness):
    """One process and one node that refuses some commands."""

    def __init__(self):
        super().__init__()
        self.commands = self.record_commands()
        self.refuses = ()  # commands of these types are answered with a no
        (node,) = self.nodes
        self._execute, node.store.execute = node.store.execute, self._executed

    def _executed(self, command):
        if not isinstance(command, self.refuses):
            return self._execute(command)
        if isinstance(command, SetMany):
            first, *others = command.items
            del first
            return [REFUSED, *self._execute(SetMany(others, command.ttl))]
        return REFUSED

    def store(self, value, ttl=None, when=When.ALWAYS):
        """Store the key."""
        return self.run(single.store(self.cluster, "k", value, ttl, when))

    def get(self):
        """Return the value of the key."""
        return self.run(single.get(self.cluster, "k", None))


@pytest.mark.parametrize("when", [When.ALWAYS, When.PRESENT])
def test_a_refused_overwrite_leaves_no_old_value(when):
    """Not every server drops the value that was to be replaced."""
    harness = KeyHarness()
    harness.store("old")
    harness.refuses = (Set,)
    assert harness.store("new", when=when) is False
    assert harness.get() is None


def test_a_refused_cas_leaves_no_old_value():
    """The same holds for a swap."""
    harness = KeyHarness()
    harness.store("old")
    _, token = harness.run(single.gets(harness.cluster, "k", None))
    harness.refuses = (Cas,)
    assert harness.run(single.cas(harness.cluster, "k", "new", token, None)) is False
    assert harness.get() is None


def test_a_refused_add_deletes_nothing():
    """It was to store only where nothing is, so the value there belongs to another caller."""
    harness = KeyHarness()
    harness.store("another's")
    harness.refuses = (Set,)
    assert harness.store("new", when=When.ABSENT) is False
    assert harness.get() == "another's"


def test_a_refused_value_of_a_batch_leaves_no_old_value():
    """The values that were stored stay."""
    harness = KeyHarness()
    harness.run(many.set_many(harness.cluster, {"a": 1, "b": 1}, None))
    harness.refuses = (SetMany,)
    assert harness.run(many.set_many(harness.cluster, {"a": 2, "b": 2}, None)) == ["a"]
    assert harness.run(many.get_many(harness.cluster, ["a", "b"])) == {"b": 2}


def test_a_key_named_twice_is_asked_once():
    """Each value found is one hit."""
    harness = KeyHarness()
    harness.store("found")
    keys = ["k", "missing", "k", "missing", "k"]
    assert harness.run(many.get_many(harness.cluster, keys)) == {"k": "found"}
    (asked,) = [command for command in harness.commands if isinstance(command, GetMany)]
    assert list(asked.keys) == [b"k", b"missing"]
    (member,) = harness.cluster.members.values()
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
def test_a_ttl_of_zero_answers_as_any_ttl(there, when, done):
    """The result does not depend on the ttl; nothing new is left."""
    harness = KeyHarness()
    if there:
        harness.store("old")
    assert harness.store("new", 0.0, when) is done
    assert harness.get() == ("old" if there and when is When.ABSENT else None)
