"""Writes that failed: which keys may have an old value because of one, now or when it lands late.

A write *lands* when the node carries it out. One that has timed out may land later, over another
connection than the calls after it, and so after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from shardcache.core.capabilities import Trait, commands_with
from shardcache.core.commands import (
    Command,
    CommandList,
    Delete,
    DeleteMany,
    Reply,
    Set,
    When,
    keys_of,
)
from shardcache.core.key_accesses import single_commands
from shardcache.core.reserved_keys import (
    CLEARABLE,
    CLEARED,
    GENERATIONS,
    LOCKS,
    MARKS,
    PROBES,
    REFRESHING,
    VALUE_LOCKS,
)
from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeRefusedError,
    NodeUnavailableError,
    PoolTimeoutError,
)

WRITES: Final = commands_with(Trait.WRITES)
_BLIND: Final = commands_with(Trait.BLIND)

# Prefixes of keys that hold no value of a caller, and must not be deleted: another client may hold
# the lock, and a generation is decided by a majority of nodes.
_KEPT: Final = (LOCKS, VALUE_LOCKS, GENERATIONS, CLEARED, MARKS, REFRESHING, PROBES)


class Repair(IntEnum):
    """When a key is deleted after a write of it has failed; always if its node was ejected."""

    # At no other time: the key has the value that it had, and the write cannot replace a newer one.
    AT_RETURN = 0
    IF_WRITTEN = 1  # also if a newer write is confirmed, because the older one may land after it
    ALWAYS = 2  # also if the node answers again without having been ejected


def may_land(error: NodeError) -> bool:
    """Return whether the node may still carry out a command that ended with this error.

    It cannot if it has refused the command, or if the command did not reach it.

    >>> may_land(NodeRefusedError("read only")), may_land(NodeUnavailableError("connection lost"))
    (False, True)
    """
    if isinstance(error, (ConnectTimeoutError, PoolTimeoutError, NodeRefusedError)):
        return False
    if not isinstance(error, NodeUnavailableError):
        return True
    return error.sent and not isinstance(error.__cause__, ConnectionRefusedError)


def written_keys(command: Command, reply: Reply) -> Iterator[tuple[bytes, Repair | None]]:
    """Yield each key that a command was to write, and how it is repaired; `None` if it was written.

    A key that the node refused to write is left out: its old value is deleted at once.
    """
    for each, its_reply in single_commands(command, reply):
        if type(each) not in WRITES:
            continue
        keys = keys_of(each)
        replies = its_reply if isinstance(its_reply, list) else [its_reply] * len(keys)
        for key, result in zip(keys, replies, strict=True):
            if _is_kept(key) or isinstance(result, NodeRefusedError):
                continue
            if not isinstance(result, NodeError):
                yield key, None
            elif not _adds(each) or may_land(result):
                yield key, _repair(each, result)


def keys_to_write(command: Command) -> list[bytes]:
    """Return the keys that a command, or those in a list of commands, may write.

    >>> keys_to_write(DeleteMany([b"a", b"b"]))
    [b'a', b'b']
    """
    commands = command.commands if isinstance(command, CommandList) else (command,)
    return [key for each in commands if type(each) in WRITES for key in keys_of(each)]


def _adds(command: Command) -> bool:
    """Return whether a command is an `add`, which replaces no value, and so leaves no old one."""
    return isinstance(command, Set) and command.when is When.ABSENT


def _repair(command: Command, error: NodeError) -> Repair:
    if isinstance(command, (Delete, DeleteMany)) or not getattr(error, "sent", True):
        return Repair.ALWAYS
    lands = type(command) in _BLIND and may_land(error)
    return Repair.IF_WRITTEN if lands else Repair.AT_RETURN


def _is_kept(key: bytes) -> bool:
    if key.startswith(CLEARABLE):  # behind it stands a generation, then the key's own name
        _, _, key = key.removeprefix(CLEARABLE).partition(b":")
    return key.startswith(_KEPT)
