"""Calls for one key and for many, where a node refuses or a key is named twice."""

from __future__ import annotations

import pytest

from operations.client_harness import REFUSED, ClientHarness
from shardcache.core.commands import Cas, GetMany, Set, SetMany, When


@pytest.mark.parametrize("when", [When.ALWAYS, When.PRESENT])
def test_a_refused_overwrite_leaves_no_old_value(when):
    """Not every server drops the value that was to be replaced."""
    harness = ClientHarness()
    harness.store("old")
    harness.answer_to(Set, REFUSED)
    assert harness.store("new", when=when) is False
    assert harness.get() is None


def test_a_refused_cas_leaves_no_old_value():
    """The same holds for a swap."""
    harness = ClientHarness()
    harness.store("old")
    _, token = harness.gets()
    harness.answer_to(Cas, REFUSED)
    assert harness.cas("new", token) is False
    assert harness.get() is None


def test_a_refused_add_deletes_nothing():
    """It was to store only where nothing is, so the value there belongs to another caller."""
    harness = ClientHarness()
    harness.store("another's")
    harness.answer_to(Set, REFUSED)
    assert harness.store("new", when=When.ABSENT) is False
    assert harness.get() == "another's"


def test_a_refused_value_of_a_batch_leaves_no_old_value():
    """The values that were stored stay."""
    harness = ClientHarness()
    harness.set_many({"a": 1, "b": 1})

    def refuse_first(command, execute):
        return [REFUSED, *execute(SetMany(command.items[1:], command.ttl))]

    harness.answer_to(SetMany, refuse_first)
    assert harness.set_many({"a": 2, "b": 2}) == ["a"]
    assert harness.get_many("a", "b") == {"b": 2}


def test_a_key_named_twice_is_asked_once():
    """Each value found is one hit."""
    harness = ClientHarness()
    harness.store("found")
    keys = ["k", "missing", "k", "missing", "k"]
    assert harness.get_many(*keys) == {"k": "found"}
    (asked,) = [command for command in harness.received[0] if isinstance(command, GetMany)]
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
    harness = ClientHarness()
    if there:
        harness.store("old")
    assert harness.store("new", 0.0, when) is done
    assert harness.get() == ("old" if there and when is When.ABSENT else None)
