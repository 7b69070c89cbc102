"""What is done to a key only if it holds a known payload, on servers that can and cannot compare."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

from shardcache.core.commands import (
    Cas,
    Command,
    DeleteIf,
    DeleteUnchanged,
    ExpireIf,
    Gets,
    Reply,
    Taken,
)
from shardcache.operations.cluster import Cluster
from shardcache.operations.members import Link
from shardcache.operations.port import UNANSWERED

# Says whether the replies so far, `UNANSWERED` among them, will do.
Suffices: TypeAlias = Callable[[Mapping[Link, Reply]], bool]


async def compared(
    cluster: Cluster,
    asks: Sequence[tuple[Link, DeleteIf | ExpireIf]],
    deadline: float,
    enough: Suffices,
    absent: Callable[[Link], Command | None] = lambda _: None,
) -> list[Reply]:
    """Do it on each node that holds the payload; give whether, or the node's error.

    Where the server cannot compare the key is read first, and changed by CAS. Where the payload is
    not, or nothing is, the command that `absent` returns is asked in its place; it must change
    nothing that is there. When `enough` says that the replies so far will do, the others are not
    waited for.
    """
    links = [link for link, _ in asks]
    found = await cluster.ask_many(
        [(link, _first_step(link, command)) for link, command in asks],
        deadline,
        lambda heard: enough(dict(zip(links, map(_holds, heard), strict=True))),
    )
    replies = dict(zip(links, found, strict=True))
    changing: list[tuple[Link, Command]] = []
    for (link, command), reply in zip(asks, found, strict=True):
        following = None
        if reply is None or reply is False:
            replies[link] = False
            following = absent(link)
        elif isinstance(reply, tuple):
            replies[link] = False
            if reply[0] == command.payload:
                following = _by_cas(command, reply)
        if following is not None:
            replies[link] = UNANSWERED
            changing.append((link, following))
    changed = await cluster.ask_many(
        changing, deadline, lambda heard: enough({**replies, **_by_link(changing, heard)})
    )
    for link, reply in _by_link(changing, changed).items():
        replies[link] = _done(reply)
    return list(replies.values())


async def deleted(  # noqa: PLR0913, PLR0917 - as above, with the tokens
    cluster: Cluster,
    links: Sequence[Link],
    command: DeleteIf,
    tokens: Mapping[Link, Hashable],
    deadline: float,
    enough: Suffices,
) -> list[Reply]:
    """Remove the key on each node that holds the payload, by its token where there is one.

    That is one step where the server cannot compare. A token says no more than that nothing has
    changed: where it is refused the payload decides.
    """
    unheard = dict.fromkeys(links, UNANSWERED)
    known = [link for link in links if DeleteIf in link.lacks and tokens.get(link) is not None]
    asks: list[tuple[Link, Command]] = [
        (link, DeleteUnchanged(command.key, tokens[link]) if link in known else command)
        for link in links
        if link in known or DeleteIf not in link.lacks
    ]
    replies = await cluster.ask_many(
        asks, deadline, lambda heard: enough({**unheard, **_by_link(asks, heard)})
    )
    found = _by_link(asks, replies)
    rest = [link for link in links if link not in found or (link in known and not found[link])]
    if rest:
        settled = {link: reply for link, reply in found.items() if link not in rest}
        compare = await compared(
            cluster,
            [(link, command) for link in rest],
            deadline,
            lambda heard: enough({**settled, **heard}),
        )
        found.update(zip(rest, compare, strict=True))
    return [found[link] for link in links]


def _by_link(asks: Sequence[tuple[Link, Command]], replies: Sequence[Reply]) -> dict[Link, Reply]:
    return {link: reply for (link, _), reply in zip(asks, replies, strict=True)}


def _first_step(link: Link, command: DeleteIf | ExpireIf) -> Command:
    return Gets(command.key) if type(command) in link.lacks else command


def _done(reply: Reply) -> Reply:
    """Give a reply to the second step as whether it was done."""
    return isinstance(reply, Taken) if reply is None or isinstance(reply, Taken) else reply


def _holds(reply: Reply) -> Reply:
    """Give a reply to `Gets` as one to the command that follows it."""
    return True if isinstance(reply, tuple) else reply


def _by_cas(command: DeleteIf | ExpireIf, found: Sequence[object]) -> Command:
    """Give the command that does it to what was found."""
    if isinstance(command, DeleteIf):
        return DeleteUnchanged(command.key, found[1])
    return Cas(command.key, command.payload, found[1], command.ttl)
