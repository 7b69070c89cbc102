"""A change of nodes in progress, and what each command means for a key that moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from shardcache.core.capabilities import CAS, STUBS, Trait, commands_with
from shardcache.core.commands import (
    REPLIES,
    Command,
    CommandList,
    Delete,
    DeleteMany,
    Get,
    GetAged,
    GetMany,
    GetOrStub,
    Payload,
    Reply,
    Set,
    SetMany,
    When,
    keys_of,
)
from shardcache.core.placement.nodes import MEMORY
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import ESCAPED, RESERVED, TAGS
from shardcache.core.values.flags import KIND_OF, UNKNOWN_FLAGS, is_mark, is_stub
from shardcache.errors import NodeError
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import OwnerOf

SPREAD: Final = 60.0  # seconds from the first process that switches to the last
MOST_UNCONFIRMED: Final = 10_000  # keys whose delete an old node has not confirmed

MANY: Final = (GetMany, SetMany, DeleteMany)
LOOKING: Final = commands_with(Trait.LOOKS)

_READING: Final = commands_with(Trait.READS)
_WITH_MORE: Final = commands_with(Trait.READS | Trait.LOOKS)  # replies have a payload and more
_REPLACING: Final = commands_with(Trait.REPLACES)
_CHANGING: Final = commands_with(Trait.CHANGES)  # the value moves first

_MOVING_PREFIXES: Final = (ESCAPED, TAGS)  # of all reserved keys, these alone move with their owner
_TO_COPY: Final = STUBS | CAS  # what the target of a copy must support
_KEEPING_FLAGS: Final = (MEMORY, "memcached")  # schemes of nodes that keep the flags of any client


class Move:
    """A change of nodes in progress, shared by all handles of a client.

    `topology` and `members` are the other nodes: the next ones while the change is only announced, the
    old ones after the switch. The old nodes are read until `reads_until`, and deleted on until `until`.
    `end` is called at the first call after that. `reads` counts the keys that were read there, `hits`
    those that were found, `copied` the values that were stored on their new nodes.

    A key is `unconfirmed` if the old node has not confirmed its delete: it is not read there any more.
    """

    __slots__ = (
        "copied",
        "end",
        "hits",
        "members",
        "reads",
        "reads_until",
        "since",
        "topology",
        "unconfirmed",
        "until",
    )

    def __init__(
        self,
        topology: Topology,
        members: Mapping[str, Member],
        since: float,
        warm_for: float | None = None,
        end: Callable[[Move], None] = lambda _: None,
    ) -> None:
        self.topology = topology
        self.members = members
        self.since = since
        self.reads_until = -math.inf if warm_for is None else since + warm_for
        self.until = math.inf if warm_for is None else self.reads_until + SPREAD
        self.end = end
        self.unconfirmed: dict[bytes, None] = {}
        self.reads = self.hits = self.copied = 0

    @property
    def announced(self) -> bool:
        """Whether the client has not switched yet."""
        return self.until == math.inf

    def others(self, members: Mapping[str, Member]) -> dict[str, Member]:
        """Return the other nodes that are not among `members`, by the names that operators see."""
        own, when = set(members.values()), "next" if self.announced else "old"
        return {
            f"{when} {name}": member for name, member in self.members.items() if member not in own
        }

    def note_unconfirmed(self, name: bytes) -> None:
        """Read no old value of this key any more; after too many such keys, read no old value at all."""
        if len(self.unconfirmed) >= MOST_UNCONFIRMED:
            self.reads_until = -math.inf
        self.unconfirmed[name] = None

    def counters(self, now: float) -> dict[str, float]:
        """Return what users see of it."""
        return {
            "seconds_left": max(0.0, self.until - now),
            "reads": self.reads,
            "hits": self.hits,
            "copied": self.copied,
        }


class Moving(NamedTuple):
    """A move, and the other owner of a key by its name, in the namespace of one cluster.

    `reached` returns the stand-in of that owner while it is ejected: a process that has the other nodes
    as its own reads the key there.
    """

    move: Move
    owner: OwnerOf
    reached: OwnerOf


class Aged(NamedTuple):
    """A value on an old node, and the seconds for which it is kept there; `None` if it cannot tell."""

    payload: Payload
    left: float | None


def moves_with_owner(name: bytes) -> bool:
    """Return whether a key moves to its next owner, unlike a lock, a mark or a generation."""
    return not name.startswith(RESERVED) or name.startswith(_MOVING_PREFIXES)


def commands_of(command: Command) -> Sequence[Command]:
    """Return the commands of a list; any other command by itself."""
    return command.commands if isinstance(command, CommandList) else (command,)


def is_add(command: Command) -> bool:
    """Return whether a command stores a key only if it is missing."""
    return isinstance(command, Set) and command.when is When.ABSENT


def replaces(command: Command) -> bool:
    """Return whether the old value has to be deleted before this command."""
    if isinstance(command, Set):
        return command.when is not When.ABSENT
    return type(command) in _REPLACING or type(command) in _CHANGING


def needs_value(command: Command) -> bool:
    """Return whether the old value has to be copied before this command."""
    if isinstance(command, Set):
        return command.when is not When.ALWAYS
    return type(command) in _CHANGING or type(command) is GetOrStub


def may_have_changed(command: Command, reply: Reply) -> bool:
    """Return whether a command may have changed its keys; a delete of a missing one counts as well."""
    if isinstance(command, (Delete, DeleteMany)):
        return True
    return (is_add(command) or replaces(command)) and reply is not False and reply is not None


def missing_in(command: Command, reply: Any) -> Iterator[bytes]:  # of the command's type
    """Yield the names that a read has not found. A stub counts as missing: it may be that of a copy."""
    kind = type(command)
    if isinstance(reply, NodeError) or not (kind in _READING or kind in LOOKING):
        return
    replies = reply if kind is GetMany else [reply]
    for name, each in zip(keys_of(command), replies, strict=True):
        payload = each[0] if each is not None and kind in _WITH_MORE else each
        if payload is None or (type(payload) is tuple and is_stub(payload)):
            yield name


def fill_in(command: Command, reply: Reply, found: Mapping[bytes, Aged]) -> Reply:
    """Return the reply to a read, with the values that old nodes have."""
    if type(command) is Get:
        return found[command.key].payload if command.key in found else reply
    if type(command) is GetMany and isinstance(reply, REPLIES):
        return [
            found[name].payload if name in found else each
            for name, each in zip(command.keys, reply, strict=True)
        ]
    return reply


def merge(command: Command, reply: Reply, deleted: Mapping[bytes, Reply]) -> Reply:
    """Return the reply to a delete, for both nodes; that to any other command as it is.

    A write is done when its own node has stored it. A delete is done when no node has the key.
    """
    if isinstance(command, CommandList) and isinstance(reply, list):
        return [
            merge(each, its_reply, deleted)
            for each, its_reply in zip(command.commands, reply, strict=True)
        ]
    if isinstance(command, DeleteMany) and isinstance(reply, list):
        return [
            _both(its_reply, deleted.get(name))
            for name, its_reply in zip(command.keys, reply, strict=True)
        ]
    return _both(reply, deleted.get(command.key)) if isinstance(command, Delete) else reply


def _both(reply: Reply, other: Reply) -> Any:  # a bool or an error, as the command has it
    if isinstance(reply, NodeError):
        return reply
    return other if isinstance(other, NodeError) else bool(reply or other)


def values_in(command: Command, reply: Any) -> Iterator[tuple[bytes, Aged]]:  # as above
    """Yield the values in the reply of an old node, by name, without marks."""
    if isinstance(reply, NodeError):
        return
    replies = reply if type(command) is GetMany else [reply]
    for name, each in zip(keys_of(command), replies, strict=True):
        if type(each) is tuple:
            payload, left = each if type(command) is GetAged else (each, None)
            if not is_mark(payload):
                yield name, Aged(payload, left)


def can_copy(aged: Aged, new: Member) -> bool:
    """Return whether a node can keep an old value as what it is, and for as long.

    memcached keeps the flags of any client, Redis only those of shardcache. What another client
    stored on Redis has no flags at all.
    """
    flags, _ = aged.payload
    keeps_flags = new.node.address.scheme.startswith(_KEEPING_FLAGS)
    portable = flags in KIND_OF or (keeps_flags and flags < UNKNOWN_FLAGS)
    return portable and bool(aged.left) and new.supports >= _TO_COPY
