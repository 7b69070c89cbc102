"""Compare-and-delete and compare-and-expire, on servers that can and cannot compare."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

from shardcache.core.commands import (
    Acquired,
    Cas,
    Command,
    CompareAndDelete,
    CompareAndExpire,
    DeleteCas,
    Gets,
    Reply,
)
from shardcache.operations.cluster.cluster import AskMany
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import UNANSWERED

# Returns whether the replies so far, `UNANSWERED` among them, suffice.
Suffices: TypeAlias = Callable[[Mapping[Member, Reply]], bool]


async def compare_and_change(
    ask_many: AskMany,
    asks: Sequence[tuple[Member, CompareAndDelete | CompareAndExpire]],
    deadline: float,
    enough: Suffices,
    absent: Callable[[Member], Command | None] = lambda _: None,
) -> list[Reply]:
    """Run the command on every node whose key holds its payload.

    `ask_many` is the door: a cluster's `ask_members` for locks, `ask_many` for what belongs to a key.
    Return `True`, `False` or the node's error per node. Where the server cannot compare, the key is
    read first and changed by CAS. Where the key is missing or holds something else, the command that
    `absent` returns is sent in its place; it must not change an existing key. Once the replies are
    `enough`, the other nodes are not awaited.
    """
    members = [member for member, _ in asks]
    found = await ask_many(
        [(member, _first_step(member, command)) for member, command in asks],
        deadline,
        lambda heard: enough(dict(zip(members, map(_after_read, heard), strict=True))),
    )
    replies = dict(zip(members, found, strict=True))
    changing: list[tuple[Member, Command]] = []
    for (member, command), reply in zip(asks, found, strict=True):
        following = None
        if reply is None or reply is False:
            replies[member] = False
            following = absent(member)
        elif isinstance(reply, tuple):
            replies[member] = False
            if reply[0] == command.payload:
                following = _cas_command(command, reply)
        if following is not None:
            replies[member] = UNANSWERED
            changing.append((member, following))
    changed = await ask_many(
        changing, deadline, lambda heard: enough({**replies, **_by_member(changing, heard)})
    )
    for member, reply in _by_member(changing, changed).items():
        replies[member] = _as_bool(reply)
    return list(replies.values())


async def compare_and_delete(  # noqa: PLR0913, PLR0917 - as above, with the tokens
    ask_many: AskMany,
    members: Sequence[Member],
    command: CompareAndDelete,
    tokens: Mapping[Member, Hashable],
    deadline: float,
    enough: Suffices,
) -> list[Reply]:
    """Remove the key on every node that holds the payload, by its CAS token where one is known.

    With a token one step suffices where the server cannot compare. A refused token says only that
    the key has changed: then the payload decides.
    """
    unheard = dict.fromkeys(members, UNANSWERED)
    known = [
        member
        for member in members
        if CompareAndDelete not in member.supports and tokens.get(member) is not None
    ]
    asks: list[tuple[Member, Command]] = [
        (member, DeleteCas(command.key, tokens[member]) if member in known else command)
        for member in members
        if member in known or CompareAndDelete in member.supports
    ]
    replies = await ask_many(
        asks, deadline, lambda heard: enough({**unheard, **_by_member(asks, heard)})
    )
    found = _by_member(asks, replies)
    rest = [
        member
        for member in members
        if member not in found or (member in known and not found[member])
    ]
    if rest:
        settled = {member: reply for member, reply in found.items() if member not in rest}
        compared = await compare_and_change(
            ask_many,
            [(member, command) for member in rest],
            deadline,
            lambda heard: enough({**settled, **heard}),
        )
        found.update(zip(rest, compared, strict=True))
    return [found[member] for member in members]


def _by_member(
    asks: Sequence[tuple[Member, Command]], replies: Sequence[Reply]
) -> dict[Member, Reply]:
    return {member: reply for (member, _), reply in zip(asks, replies, strict=True)}


def _first_step(member: Member, command: CompareAndDelete | CompareAndExpire) -> Command:
    return command if type(command) in member.supports else Gets(command.key)


def _as_bool(reply: Reply) -> Reply:
    """Return the reply to a second step as a bool; an error stays as it is."""
    return isinstance(reply, Acquired) if reply is None or isinstance(reply, Acquired) else reply


def _after_read(reply: Reply) -> Reply:
    """Return the reply to a `Gets` as if the second step had been answered, too."""
    return True if isinstance(reply, tuple) else reply


def _cas_command(command: CompareAndDelete | CompareAndExpire, found: Sequence[object]) -> Command:
    """Return the command that changes what a `Gets` found, by its token."""
    if isinstance(command, CompareAndDelete):
        return DeleteCas(command.key, found[1])
    return Cas(command.key, command.payload, found[1], command.ttl)
