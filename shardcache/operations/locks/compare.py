"""What is done to a key only if it holds a known payload, on servers that can and cannot compare."""

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
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import UNANSWERED

# Says whether the replies so far, `UNANSWERED` among them, will do.
Suffices: TypeAlias = Callable[[Mapping[Member, Reply]], bool]


async def compared(
    cluster: Cluster,
    asks: Sequence[tuple[Member, CompareAndDelete | CompareAndExpire]],
    deadline: float,
    enough: Suffices,
    absent: Callable[[Member], Command | None] = lambda _: None,
) -> list[Reply]:
    """Do it on each node that holds the payload; return whether, or the node's error.

    Where the server cannot compare the key is read first, and changed by CAS. Where the payload is
    not, or nothing is, the command that `absent` returns is asked in its place; it must change
    nothing that is there. When `enough` says that the replies so far will do, the others are not
    waited for.
    """
    members = [member for member, _ in asks]
    found = await cluster.ask_many(
        [(member, _first_step(member, command)) for member, command in asks],
        deadline,
        lambda heard: enough(dict(zip(members, map(_holds, heard), strict=True))),
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
                following = _by_cas(command, reply)
        if following is not None:
            replies[member] = UNANSWERED
            changing.append((member, following))
    changed = await cluster.ask_many(
        changing, deadline, lambda heard: enough({**replies, **_by_member(changing, heard)})
    )
    for member, reply in _by_member(changing, changed).items():
        replies[member] = _done(reply)
    return list(replies.values())


async def deleted(  # noqa: PLR0913, PLR0917 - as above, with the tokens
    cluster: Cluster,
    members: Sequence[Member],
    command: CompareAndDelete,
    tokens: Mapping[Member, Hashable],
    deadline: float,
    enough: Suffices,
) -> list[Reply]:
    """Remove the key on each node that holds the payload, by its token where there is one.

    That is one step where the server cannot compare. A token says no more than that nothing has
    changed: where it is refused the payload decides.
    """
    unheard = dict.fromkeys(members, UNANSWERED)
    known = [
        member
        for member in members
        if CompareAndDelete in member.lacks and tokens.get(member) is not None
    ]
    asks: list[tuple[Member, Command]] = [
        (member, DeleteCas(command.key, tokens[member]) if member in known else command)
        for member in members
        if member in known or CompareAndDelete not in member.lacks
    ]
    replies = await cluster.ask_many(
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
        compare = await compared(
            cluster,
            [(member, command) for member in rest],
            deadline,
            lambda heard: enough({**settled, **heard}),
        )
        found.update(zip(rest, compare, strict=True))
    return [found[member] for member in members]


def _by_member(
    asks: Sequence[tuple[Member, Command]], replies: Sequence[Reply]
) -> dict[Member, Reply]:
    return {member: reply for (member, _), reply in zip(asks, replies, strict=True)}


def _first_step(member: Member, command: CompareAndDelete | CompareAndExpire) -> Command:
    return Gets(command.key) if type(command) in member.lacks else command


def _done(reply: Reply) -> Reply:
    """Return a reply to the second step as whether it was done."""
    return isinstance(reply, Acquired) if reply is None or isinstance(reply, Acquired) else reply


def _holds(reply: Reply) -> Reply:
    """Return a reply to `Gets` as one to the command that follows it."""
    return True if isinstance(reply, tuple) else reply


def _by_cas(command: CompareAndDelete | CompareAndExpire, found: Sequence[object]) -> Command:
    """Return the command that does it to what was found."""
    if isinstance(command, CompareAndDelete):
        return DeleteCas(command.key, found[1])
    return Cas(command.key, command.payload, found[1], command.ttl)
