"""The versions of tags: values stored with another version of one of their tags count for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from shardcache.core.commands import Delete, Get, Reply, Set, When
from shardcache.core.reserved_keys import TAGS
from shardcache.core.values.envelopes import VERSION_SIZE
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key


def placed(cluster: Cluster, tags: Sequence[Key]) -> list[tuple[bytes, Member]]:
    """Give for each tag the name of its version, and the node that keeps it."""
    routes = (cluster.route(tag) for tag in tags)
    return [(TAGS + name, member) for name, member in routes]


def version(cluster: Cluster, name: bytes, reply: Reply) -> bytes | None:
    """Give the version in a reply about `name`; `None` if there is none, or its node failed."""
    if not isinstance(reply, tuple):
        return None
    try:
        flags, data = cluster.payloads.open(name, reply)
    except DecodeError:
        return None
    return data if flags == MARK_FLAGS and len(data) == VERSION_SIZE else None


async def versions(cluster: Cluster, tags: Sequence[Key]) -> list[bytes] | None:
    """Give the versions that the tags have now, made if need be; `None` if a node failed."""
    if not tags:
        return []
    places = placed(cluster, tags)
    deadline = cluster.deadline()
    replies = await cluster.ask_many([(member, Get(name)) for name, member in places], deadline)
    known: list[bytes] = []
    for (name, member), reply in zip(places, replies, strict=True):
        if isinstance(reply, NodeError):
            return None
        made = version(cluster, name, reply) or await _made(cluster, member, name, deadline)
        if made is None:
            return None
        known.append(made)
    return known


async def _made(cluster: Cluster, member: Member, name: bytes, deadline: float) -> bytes | None:
    """Make a version of a tag that has none; if another is faster, theirs."""
    fresh = cluster.io.token()[:VERSION_SIZE]
    payload = cluster.payloads.seal(name, (MARK_FLAGS, fresh))
    stored = await cluster.ask(member, Set(name, payload, None, When.ABSENT), deadline)
    if stored is True:
        return fresh
    return version(cluster, name, await cluster.ask(member, Get(name), deadline))


async def invalidate(cluster: Cluster, tag: Key) -> bool:
    """Make every value with this tag a miss; say whether the tag's node has taken note."""
    # Which of the values being made have this tag is not known: nobody joins any of them.
    cluster.io.single_flight.forget_all()
    ((name, member),) = placed(cluster, [tag])
    reply = await cluster.ask(member, Delete(name))
    return not isinstance(cluster.unwrap(reply, reply), NodeError)
