"""What a command and its reply say of the keys that were accessed."""

from __future__ import annotations

import pytest

from shardcache import KeysAccessed, Node, NodeRefusedError, NodeTimeoutError
from shardcache.core.commands import (
    Acquire,
    Acquired,
    Cas,
    CasKeep,
    CasUntil,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetExpiry,
    GetMany,
    Gets,
    Incr,
    IncrSigned,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    Until,
    When,
)
from shardcache.core.events import METHODS, Observers
from shardcache.core.key_accesses import hits_and_misses, keys_accessed, single_commands
from shardcache.core.keys import KeySpace, hash_name
from shardcache.core.reserved_keys import LOCKS, own_key
from shardcache.core.values.flags import BARE_STUB, ERROR_FLAGS, RAW_FLAGS, abandoned, stub

NODE = Node("memory://a")
VALUE = (RAW_FLAGS, b"12345")
EMPTY = (RAW_FLAGS, b"")
LOST = NodeTimeoutError("no answer in time", "a")
MARKS = [stub(b"m"), abandoned(b"m"), (ERROR_FLAGS, b"error"), BARE_STUB]


def told(command, reply):
    """Return the fields of the event without the node, `None` when there is none."""
    event = keys_accessed(command, reply, NODE)
    if event is None:
        return None
    assert event.node is NODE
    return event.operation, [*event.keys], [*event.sizes], event.ttl


@pytest.mark.parametrize(
    ("command", "reply", "expected"),
    [
        (Get(b"k"), VALUE, ("get", [b"k"], [5], None)),
        (Get(b"k"), EMPTY, ("get", [b"k"], [0], None)),
        (Get(b"k"), None, ("get", [b"k"], [None], None)),
        (Gets(b"k"), (VALUE, 7), ("get", [b"k"], [5], None)),
        (Gets(b"k"), None, ("get", [b"k"], [None], None)),
        (GetMany([b"k", b"l"]), [None, VALUE], ("get_many", [b"k", b"l"], [None, 5], None)),
        (Set(b"k", VALUE, 60.0), True, ("set", [b"k"], [5], 60.0)),
        (Set(b"k", VALUE, None, When.ABSENT), False, ("add", [b"k"], [5], None)),
        (Set(b"k", VALUE, 60.0, When.PRESENT), True, ("replace", [b"k"], [5], 60.0)),
        (Cas(b"k", VALUE, 7, 60.0), None, ("cas", [b"k"], [5], 60.0)),
        (CasUntil(b"k", VALUE, 7, Until(5)), True, ("cas", [b"k"], [5], None)),
        (CasKeep(b"k", VALUE, 7), True, ("cas", [b"k"], [5], None)),
        (
            SetMany([(b"k", VALUE), (b"l", EMPTY)], 60.0),
            [True, True],
            ("set_many", [b"k", b"l"], [5, 0], 60.0),
        ),
        (Delete(b"k"), False, ("delete", [b"k"], [None], None)),
        (DeleteMany([b"k", b"l"]), [True, False], ("delete_many", [b"k", b"l"], [None] * 2, None)),
        (Touch(b"k", 60.0), True, ("touch", [b"k"], [None], 60.0)),
        (Incr(b"k", -1), 4, ("incr", [b"k"], [None], None)),
        (Incr(b"k", 1), None, ("incr", [b"k"], [None], None)),
        (IncrSigned(b"k", -1), -4, ("incr", [b"k"], [None], None)),
    ],
)
def test_a_command_is_reported_by_the_callers_word(command, reply, expected):
    """With its keys, the bytes of each value read or sent, and the ttl asked for."""
    assert told(command, reply) == expected


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_not_reported(mark):
    """Followers look for one often; leaving one is no write of a caller."""
    assert told(Get(b"k"), mark) is None
    assert told(Gets(b"k"), (mark, 7)) == ("get", [b"k"], [None], None)
    assert told(GetMany([b"k"]), [mark]) == ("get_many", [b"k"], [None], None)
    assert told(Cas(b"k", mark, 7, 2.0), reply=True) is None
    assert told(Set(b"k", mark, 2.0), reply=True) is None


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (Acquire(b"k", VALUE, 5.0), Acquired(7)),
        (Renew(b"k", b"m", 7, 5.0), 8),
        (CompareAndDelete(b"k", VALUE), True),
        (CompareAndExpire(b"k", VALUE, 5.0), True),
        (DeleteCas(b"k", 7), True),
        (GetAged(b"k"), (VALUE, 5.0)),
        (Peek(b"k"), (VALUE, 5.0)),
        (GetExpiry(b"k"), Until(5)),
        (Ping(), True),
        (ServerStats(), {"pid": "1"}),
        (FlushAll(), True),
    ],
)
def test_commands_of_locks_and_servers_are_not_reported(command, reply):
    """They say nothing of a caller's use of a key."""
    assert told(command, reply) is None


@pytest.mark.parametrize(
    "command",
    [Get(b"k"), Set(b"k", VALUE), Incr(b"k", 1), GetMany([b"k"]), SetMany([(b"k", VALUE)])],
)
def test_an_unanswered_command_is_not_reported(command):
    """An error in place of the reply is no access."""
    assert told(command, LOST) is None


def test_answered_keys_of_a_batch_are_reported():
    """Sizes stay with their keys, whichever is missing."""
    refused = NodeRefusedError("out of memory", "a")
    keys = [b"a", b"b", b"c"]
    many = GetMany(keys)
    assert told(many, [LOST, VALUE, None]) == ("get_many", [b"b", b"c"], [5, None], None)
    items = [(b"a", EMPTY), (b"b", VALUE), (b"c", VALUE)]
    assert told(SetMany(items), [True, refused, True]) == ("set_many", [b"a", b"c"], [0, 5], None)
    assert told(DeleteMany(keys), [True, LOST, LOST]) == ("delete_many", [b"a"], [None], None)
    assert told(many, [LOST, LOST, LOST]) is None


def test_reserved_keys_are_not_reported():
    """Locks, tags, generations and refresh keys are no keys of a caller."""
    ours = [own_key(LOCKS, b"k"), *(b"~sc:%c:k" % letter for letter in b"gtrv"), b"~sc:ping"]
    for key in ours:
        assert told(Get(key), VALUE) is None
        assert told(Set(key, VALUE, 5.0, When.ABSENT), reply=True) is None
    mixed = GetMany([ours[0], b"k", ours[1], b"l"])
    assert told(mixed, [VALUE, None, None, EMPTY]) == ("get_many", [b"k", b"l"], [None, 0], None)


def test_a_callers_key_is_reported_however_it_begins():
    """One that reads like a reserved key is escaped or hashed, or is in a namespace."""
    escaped = KeySpace().canonical(b"~sc:l:report")
    named = KeySpace("shop").canonical(b"~sc:l:report")
    for key in (escaped, named, hash_name(b"two words")):
        assert told(Get(key), VALUE) == ("get", [key], [5], None)


def test_an_observer_hears_the_kinds_it_has_methods_for():
    """Only the kinds for which an observer has a method of its own."""

    class Listener:
        def keys_accessed(self, event):
            pass

    assert KeysAccessed in METHODS
    assert Observers([Listener()]).heard == {KeysAccessed}
    assert Observers().heard == frozenset()


@pytest.mark.parametrize("kind", [Gets, GetAged, Peek])
def test_a_look_at_a_key_is_a_hit_or_a_miss(kind):
    """A mark is a miss; shardcache's own keys are neither."""
    assert hits_and_misses(kind(b"k"), (VALUE, 5.0)) == (1, 0)
    assert hits_and_misses(kind(b"k"), None) == (0, 1)
    assert hits_and_misses(kind(b"k"), (MARKS[0], 5.0)) == (0, 1)
    assert hits_and_misses(kind(b"k"), LOST) == (0, 0)
    assert hits_and_misses(kind(own_key(LOCKS, b"k")), (VALUE, 5.0)) == (0, 0)
    assert hits_and_misses(GetExpiry(b"k"), Until(5)) == (0, 0)


def test_reads_have_hits_and_misses():
    """A key of a batch that failed has neither, and a mark is a miss only in a batch."""
    assert hits_and_misses(Get(b"k"), VALUE) == (1, 0)
    assert hits_and_misses(Get(b"k"), None) == (0, 1)
    assert hits_and_misses(Get(b"k"), MARKS[0]) == (0, 0)
    many = GetMany([b"a", b"b", b"c", b"d"])
    assert hits_and_misses(many, [VALUE, None, LOST, MARKS[0]]) == (1, 2)
    assert hits_and_misses(Set(b"k", VALUE), True) == (0, 0)  # noqa: FBT003 - a reply


def test_each_command_of_a_list_is_reported():
    """A list has one event for each access, and the hits and misses of all."""
    commands = CommandList([Get(b"k"), Set(b"l", VALUE, 5.0), Get(b"m")])
    told_of = list(single_commands(commands, [VALUE, True, None]))
    assert told_of == [(Get(b"k"), VALUE), (Set(b"l", VALUE, 5.0), True), (Get(b"m"), None)]
    assert hits_and_misses(commands, [VALUE, True, None]) == (1, 1)
    assert [reply for _, reply in single_commands(commands, LOST)] == [LOST] * 3
    assert list(single_commands(Get(b"k"), VALUE)) == [(Get(b"k"), VALUE)]
