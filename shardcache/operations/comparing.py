"""What is done to a key only if it holds a known payload, on servers that can and cannot compare."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

from shardcache.core.commands import Cas, Command, DeleteIf, DeleteUnchanged, ExpireIf, Gets, Reply
from shardcache.operations.cluster import Cluster
from shardcache.operations.members import Link
from shardcache.operations.port import UNANSWERED

# Says whether the replies so far, `UNANSWERED` among them, will do.
Suffices: TypeAlias = Callable[[Mapping[Link, Reply]], bool]


async def compared(
    cluster: Cluster,
    links: Sequence[Link],
    command: DeleteIf | ExpireIf,
    deadline: float,
    enough: Suffices,
) -> list[Reply]:
    """Do it on each node that holds the payload; give whether, or the node's error.

    Where the server cannot compare the key is read first, and changed by CAS. When `enough` says
    that the replies so far will do, the others are not waited for.
    """
    kind = type(command)
    asks: list[tuple[Link, Command]] = [
        (link, Gets(command.key) if kind in link.lacks else command) for link in links
    ]
    found = await cluster.ask_many(
        asks,
        deadline,
        lambda heard: enough(dict(zip(links, map(_holds, heard), strict=True))),
    )
    replies = dict(zip(links, found, strict=True))
    changing: list[tuple[Link, Command]] = []
    for link, reply in zip(links, found, strict=True):
        if kind not in link.lacks or not (isinstance(reply, tuple) or reply is None):
            continue
        replies[link] = False
        if isinstance(reply, tuple) and reply[0] == command.payload:
            replies[link] = UNANSWERED
            changing.append((link, _by_cas(command, reply)))
    changed = await cluster.ask_many(
        changing, deadline, lambda heard: enough({**replies, **_by_link(changing, heard)})
    )
    for link, reply in _by_link(changing, changed).items():
        replies[link] = False if reply is None else reply
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
            cluster, rest, command, deadline, lambda heard: enough({**settled, **heard})
        )
        found.update(zip(rest, compare, strict=True))
    return [found[link] for link in links]


def _by_link(asks: Sequence[tuple[Link, Command]], replies: Sequence[Reply]) -> dict[Link, Reply]:
    return {link: reply for (link, _), reply in zip(asks, replies, strict=True)}


def _holds(reply: Reply) -> Reply:
    """Give a reply to `Gets` as one to the command that follows it."""
    return True if isinstance(reply, tuple) else reply


def _by_cas(command: DeleteIf | ExpireIf, found: Sequence[object]) -> Command:
    """Give the command that does it to what was found."""
    if isinstance(command, DeleteIf):
        return DeleteUnchanged(command.key, found[1])
    return Cas(command.key, command.payload, found[1], command.ttl)
