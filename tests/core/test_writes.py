"""Which keys a command may have left with an old value, and what is to be done about each."""

from __future__ import annotations

import pytest

from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CasUntil,
    CommandList,
    CompareAndDelete,
    Delete,
    DeleteCas,
    DeleteMany,
    Get,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Ping,
    Renew,
    Set,
    SetMany,
    Touch,
    Until,
    When,
)
from shardcache.core.reserved_keys import (
    CLEARABLE,
    CLEARED,
    ESCAPED,
    GENERATIONS,
    HASHED,
    LOCKS,
    MARKS,
    PROBES,
    REFRESHING,
    TAGS,
    VALUE_LOCKS,
    own_key,
)
from shardcache.core.writes import WRITES, Repair, keys_to_write, may_land, written_keys
from shardcache.errors import (
    ConnectTimeoutError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    PoolTimeoutError,
    ValueTooLargeError,
)

VALUE = (0, b"v")
DONE = True  # as most writes are answered
LATE = NodeTimeoutError("did not answer in time")
NO_PLACE = PoolTimeoutError("no connection came free")
EJECTED = NodeUnavailableError("ejected")
EJECTED.sent = False


def lost(cause):
    """Return the error of a node that could not be reached or was lost, with its cause."""
    error = NodeUnavailableError("gone")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (LATE, True),
        (lost(ConnectionResetError()), True),
        (lost(None), True),
        (NodeProtocolError("nonsense"), True),
        (lost(ConnectionRefusedError()), False),
        (EJECTED, False),
        (ConnectTimeoutError("no connection in time"), False),
        (NO_PLACE, False),
        (NodeRefusedError("read only"), False),
    ],
    ids=repr,
)
def test_a_write_may_land_if_it_may_have_reached_the_node(error, may):
    """And the node has not said that it did not do it."""
    assert may_land(error) is may


@pytest.mark.parametrize(
    ("command", "late", "refused"),
    [
        (Set(b"k", VALUE), Repair.IF_WRITTEN, Repair.ALWAYS),
        (Set(b"k", VALUE, None, When.PRESENT), Repair.IF_WRITTEN, Repair.ALWAYS),
        (Set(b"k", VALUE, None, When.ABSENT), Repair.IF_WRITTEN, None),
        (Touch(b"k", 9.0), Repair.IF_WRITTEN, Repair.ALWAYS),
        (Cas(b"k", VALUE, 1), Repair.AT_RETURN, Repair.ALWAYS),
        (CasKeep(b"k", VALUE, 1), Repair.AT_RETURN, Repair.ALWAYS),
        (CasUntil(b"k", VALUE, 1, Until(0)), Repair.AT_RETURN, Repair.ALWAYS),
        (Incr(b"k", 1), Repair.AT_RETURN, Repair.ALWAYS),
        (IncrSigned(b"k", 1), Repair.AT_RETURN, Repair.ALWAYS),
        (DeleteCas(b"k", 1), Repair.AT_RETURN, Repair.ALWAYS),
        (Delete(b"k"), Repair.ALWAYS, Repair.ALWAYS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_write_has_its_repair(command, late, refused):
    """Late: it may land on something newer, or change nothing any more. Refused: its old value is there."""
    assert list(written_keys(command, LATE)) == [(b"k", late)]
    assert list(written_keys(command, EJECTED)) == ([] if refused is None else [(b"k", refused)])
    assert list(written_keys(command, DONE)) == [(b"k", None)]
    assert type(command) in WRITES


def test_a_write_that_was_not_sent_cannot_land():
    """Without an ejection the node has the value that it had."""
    assert list(written_keys(Set(b"k", VALUE), NO_PLACE)) == [(b"k", Repair.AT_RETURN)]


@pytest.mark.parametrize(
    "command",
    [
        Get(b"k"),
        Gets(b"k"),
        GetMany([b"k"]),
        GetOrStub(b"k", b"m", 9.0),
        Renew(b"k", b"m", 1, 9.0),
        Acquire(b"k", VALUE, 9.0),
        CompareAndDelete(b"k", VALUE),
        Ping(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reads_stubs_and_locks_leave_nothing_old(command):
    """They change no value."""
    assert list(written_keys(command, LATE)) == []
    assert type(command) not in WRITES


def test_each_key_of_a_batch_has_its_own_reply():
    """Those that came in time are written, a refused one is deleted by its caller."""
    command = SetMany([(key, VALUE) for key in (b"a", b"b", b"c")])
    replies = [True, LATE, ValueTooLargeError("too large")]
    assert list(written_keys(command, replies)) == [(b"a", None), (b"b", Repair.IF_WRITTEN)]
    assert list(written_keys(DeleteMany([b"a", b"b"]), LATE)) == [
        (b"a", Repair.ALWAYS),
        (b"b", Repair.ALWAYS),
    ]


def test_a_list_of_commands_is_looked_into():
    """Of its commands only the writes count, each with its reply, or that of the whole list."""
    commands = CommandList([Get(b"a"), Set(b"b", VALUE), Delete(b"c")])
    assert list(written_keys(commands, [None, True, LATE])) == [(b"b", None), (b"c", Repair.ALWAYS)]
    assert list(written_keys(commands, LATE)) == [(b"b", Repair.IF_WRITTEN), (b"c", Repair.ALWAYS)]


@pytest.mark.parametrize(
    "prefix", [LOCKS, VALUE_LOCKS, GENERATIONS, CLEARED, MARKS, REFRESHING, PROBES], ids=repr
)
@pytest.mark.parametrize("stamp", [b"", CLEARABLE + b"0" * 16 + b":"], ids=["plain", "clearable"])
def test_locks_generations_and_marks_are_never_deleted(prefix, stamp):
    """Another client may hold the lock by then."""
    name = stamp + own_key(prefix, b"k")
    assert list(written_keys(Delete(name), EJECTED)) == []


@pytest.mark.parametrize("prefix", [b"4:shop:", ESCAPED, HASHED, TAGS], ids=repr)
@pytest.mark.parametrize("stamp", [b"", CLEARABLE + b"0" * 16 + b":"], ids=["plain", "clearable"])
def test_callers_keys_and_tags_are_deleted_by_the_names_as_sent(prefix, stamp):
    """A tag whose invalidation failed is invalidated when its node is back."""
    name = stamp + prefix + b"k"
    assert list(written_keys(Delete(name), EJECTED)) == [(name, Repair.ALWAYS)]


def test_the_keys_that_a_command_may_write():
    """Those of a list of commands too, and none of a read."""
    assert keys_to_write(Get(b"a")) == []
    assert keys_to_write(DeleteMany([b"a", b"b"])) == [b"a", b"b"]
    assert keys_to_write(CommandList([Get(b"a"), Delete(b"b"), Incr(b"c", 1)])) == [b"b", b"c"]
