"""Lock tokens without a holder that a node may still keep, and their removal in the background.

A node that was silent, or whose reply was not awaited, may have stored the token of a lock, or may
store it later. It is asked until it answers, and the token is removed by its CAS number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from shardcache.core.commands import DeleteCas, Gets, Payload, Reply
from shardcache.core.writes import may_land
from shardcache.errors import NodeError, NodeRefusedError, ShardCacheError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import UNANSWERED, Pause

# Looks at a key whose store was not confirmed: the command may arrive after the first look, over
# another connection. Each pause is twice the one before it: 0.6 s in all.
LOOKS: Final = 6
PAUSE: Final = 0.02  # seconds after the first look, and between two turns
OUT: Final = Pause(0.1, stuck=True)  # before the next look at an ejected node
PATIENCE: Final = 30.0  # seconds for which a node is asked; after that the token is left to expire
MOST: Final = 1000  # leftovers per node; beyond that the oldest is left to expire
AT_ONCE: Final = 16  # keys of one node in one call


class Leftover:
    """A token without a holder that a node may keep, since `since`.

    `looks` are left; `due` is the time of the next, `pause` the seconds between that and the one
    after it.
    """

    __slots__ = ("due", "looks", "pause", "since")

    def __init__(self, since: float, looks: int) -> None:
        self.since = self.due = since
        self.looks = looks
        self.pause = PAUSE


def may_store(reply: Reply) -> bool:
    """Return whether a node with this reply may still carry out the store.

    It cannot if it has answered, or if the command did not reach it.
    """
    return reply is UNANSWERED or (isinstance(reply, NodeError) and may_land(reply))


def remove_later(
    cluster: Cluster, members: Iterable[Member], key: bytes, payload: Payload, looks: int = 1
) -> None:
    """Remove `payload` from `key` on each node in the background, as soon as the node answers.

    Use more than one of `looks` for a payload that the node may store later.
    """
    io = cluster.io
    for member in members:
        leftovers = member.leftovers
        leftovers.pop((key, payload), None)  # so that the oldest stands first
        if len(leftovers) >= MOST:
            leftovers.pop(next(iter(leftovers)), None)
        leftovers[key, payload] = Leftover(io.now(), looks)
        io.clean_up(member, partial(_turn, cluster, member))


async def clear(cluster: Cluster, members: Iterable[Member], key: bytes) -> bool:
    """Remove leftovers under `key` at once; return whether another attempt at the lock may succeed.

    Without this, an attempt that was interrupted a moment ago would block the next one.
    """
    waiting = [
        (member, key)
        for member in members
        if any(name == key for name, _ in list(member.leftovers))
    ]
    replies = await _look(cluster, waiting) if waiting else ()
    return not all(isinstance(reply, tuple | NodeError) for reply in replies)


async def _turn(cluster: Cluster, member: Member) -> Pause | None:
    """Look for all leftovers of a node that are due; return the pause until the next turn, if any."""
    began = cluster.io.now()
    _expire(member, began)
    if not member.leftovers:
        return None
    refuses = member.health.ejected and not member.health.soft
    if refuses:  # the prober finds out when the node is back
        return OUT
    try:
        replies = [reply for due in _due(member, began) for reply in await _look(cluster, due)]
    except ShardCacheError:  # it can never serve this client, such as a member of a Redis Cluster
        member.leftovers.clear()
        return None
    if any(isinstance(reply, NodeError) for reply in replies):
        waited = cluster.io.now() - began  # a silent node is asked again at once
        return Pause(max(0.0, OUT.seconds - waited), stuck=True)
    return Pause(PAUSE) if member.leftovers else None


def _expire(member: Member, now: float) -> None:
    for name, each in list(member.leftovers.items()):
        if each.since > now - PATIENCE:  # as are all that were added later
            return
        member.leftovers.pop(name, None)


def _due(member: Member, now: float) -> Iterator[Sequence[tuple[Member, bytes]]]:
    """Yield the places of the leftovers that are due, a few at a time."""
    due = [key for (key, _), each in list(member.leftovers.items()) if each.due <= now]
    places = [(member, key) for key in dict.fromkeys(due)]
    for first in range(0, len(places), AT_ONCE):
        yield places[first : first + AT_ONCE]


async def _look(cluster: Cluster, places: Sequence[tuple[Member, bytes]]) -> Sequence[Reply]:
    """Remove leftovers under some keys; return what each node has then: a foreign value, `None`, an error."""
    began = cluster.io.now()
    replies = list(await _ask(cluster, [(member, Gets(key)) for member, key in places]))
    found: dict[int, tuple[Payload, DeleteCas]] = {}
    for place, ((member, key), reply) in enumerate(zip(places, replies, strict=True)):
        if isinstance(reply, NodeError) and not isinstance(reply, NodeRefusedError):
            continue
        payload, token = reply if isinstance(reply, tuple) else (None, None)
        for name in [name for name in list(member.leftovers) if name[0] == key]:
            if name[1] == payload:
                found[place] = (name[1], DeleteCas(key, token))
            else:
                _note_look(member, name, began)
    removed = await _ask(cluster, [(places[place][0], found[place][1]) for place in found])
    for place, reply in zip(found, removed, strict=True):
        member, key = places[place]
        if reply is True:
            _note_look(member, (key, found[place][0]), began)
        replies[place] = reply if isinstance(reply, NodeError) else None
    return replies


def _note_look(member: Member, name: tuple[bytes, Payload], began: float) -> None:
    """Count a look, begun at `began`, that did not find a leftover or removed it."""
    each = member.leftovers.get(name)
    if each is None or each.since > began:  # a leftover added meanwhile was not looked for
        return
    each.looks -= 1
    each.due, each.pause = began + each.pause, 2 * each.pause
    if each.looks <= 0:
        member.leftovers.pop(name, None)


async def _ask(
    cluster: Cluster, asks: Sequence[tuple[Member, Gets | DeleteCas]]
) -> Sequence[Reply]:
    """Ask nodes, ejected ones too: a node that resumes may carry out the store it was sent."""
    return [reply for reply, _ in await cluster.ask_timed(asks, ejected_too=True)] if asks else ()
