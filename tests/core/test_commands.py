"""The keys and the ttl of a command, read and replaced whatever its kind."""

from __future__ import annotations

from typing import get_args

import pytest

from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CasUntil,
    Command,
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
    GetOrStub,
    Gets,
    Hits,
    Incr,
    IncrSigned,
    Items,
    Peek,
    Ping,
    Renew,
    ServerStats,
    Set,
    SetMany,
    Touch,
    Until,
    is_delete,
    keys_of,
    take,
    with_keys,
    with_ttl,
)

ONE, TWO = (0, b"1"), (0, b"2")

COMMANDS = [
    Get(b"k"),
    GetMany([b"k", b"l"]),
    Gets(b"k"),
    GetAged(b"k"),
    Peek(b"k"),
    Set(b"k", ONE, 60.0),
    SetMany([(b"k", ONE), (b"l", TWO)], 60.0),
    GetExpiry(b"k"),
    Cas(b"k", ONE, 7, 60.0),
    CasKeep(b"k", ONE, 7),
    CasUntil(b"k", ONE, 7, Until(5)),
    Delete(b"k"),
    DeleteMany([b"k", b"l"]),
    Touch(b"k", 60.0),
    Incr(b"k", 1),
    IncrSigned(b"k", -1),
    GetOrStub(b"k", b"mark", 60.0),
    Renew(b"k", b"mark", 7, 60.0),
    Acquire(b"k", ONE, 60.0),
    DeleteCas(b"k", 7),
    CompareAndDelete(b"k", ONE),
    CompareAndExpire(b"k", ONE, 60.0),
    CommandList([Get(b"k"), Set(b"l", ONE, 60.0)]),
    Ping(),
    ServerStats(),
    FlushAll(),
]


def test_every_kind_of_command_is_here():
    """The tests below cover a new command as well."""
    assert [type(command) for command in COMMANDS] == list(get_args(Command))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_other_keys_change_nothing_else(command):
    """The keys are replaced in their order; with the old ones the command is the same again."""
    keys = keys_of(command)
    renamed = with_keys(command, [b"n:" + key for key in keys])
    assert type(renamed) is type(command)
    assert list(keys_of(renamed)) == [b"n:" + key for key in keys]
    assert with_keys(renamed, keys) == command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_another_ttl_changes_nothing_else(command):
    """A command with a ttl gets it; one without stays as it is."""
    changed = with_ttl(command, 5.0)
    assert type(changed) is type(command)
    assert getattr(changed, "ttl", 5.0) == 5.0
    assert with_ttl(changed, 60.0) == command
    if isinstance(command, CommandList):
        assert changed.commands[1].ttl == 5.0


def test_keys_are_as_many_as_before():
    """Payloads are never left without a key, nor a command with two."""
    with pytest.raises(ValueError, match="longer"):
        with_keys(SetMany([(b"k", ONE), (b"l", TWO)]), [b"k"])
    with pytest.raises(ValueError, match="too many"):
        with_keys(Get(b"k"), [b"k", b"l"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_deletes_are_known_from_the_rest(command):
    """One that compares first is none: it removes only what it knows."""
    assert is_delete(command) is isinstance(command, (Delete, DeleteMany))
    assert is_delete(CommandList([Get(b"k"), command])) is is_delete(command)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_part_has_some_of_the_keys(command):
    """In their order, with their payloads; a command about one key has no parts."""
    keys = keys_of(command)
    whole = take(command, range(len(keys)))
    assert whole == command
    if isinstance(command, (GetMany, SetMany, DeleteMany)):
        assert keys_of(take(command, [1])) == [keys[1]]
        assert take(command, [1, 0]) != command


ITEMS = Items([b"a", b"b", b"c"], 7, [b"1", b"2", b"3"])
PAIRS = [(b"a", (7, b"1")), (b"b", (7, b"2")), (b"c", (7, b"3"))]


@pytest.mark.parametrize(
    ("seen", "listed"), [(ITEMS, PAIRS), (Hits(7, [b"1", b"2"]), [(7, b"1"), (7, b"2")])]
)
def test_items_and_hits_are_as_the_lists_of_their_pairs(seen, listed):
    """Whoever looks at each sees no other."""
    assert list(seen) == listed
    assert seen == listed
    assert listed == seen
    assert seen != listed[:1]
    assert seen != 7
    assert len(seen) == len(listed)
    assert seen[1] == listed[1]
    assert seen[:1] == listed[:1]
    assert list(reversed(seen)) == listed[::-1]
    assert repr(seen) == repr(listed)


def test_a_command_with_items_is_as_with_a_list():
    """Its keys are read and replaced, and some of them taken."""
    stored, listed = SetMany(ITEMS, 10.0), SetMany(PAIRS, 10.0)
    assert stored == listed
    assert list(keys_of(stored)) == list(keys_of(listed))
    keys = [b"x", b"y", b"z"]
    assert with_keys(stored, keys) == with_keys(listed, keys)
    assert take(stored, [0, 2]) == take(listed, [0, 2])
    assert with_ttl(stored, None) == with_ttl(listed, None)
