"""The versions of tags. A value stored with an outdated version of one of its tags is a miss."""

from __future__ import annotations

from collections.abc import Sequence

from shardcache.core.commands import Delete, Get, Reply, Set, When
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.core.values.envelopes import VERSION_SIZE
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key


def places(cluster: Cluster, tags: Sequence[Key]) -> list[tuple[bytes, Member]]:
    """Return for each tag the name of its version, and the member that keeps it."""
    routes = (cluster.route(tag) for tag in tags)
    return [(own_key(TAGS, name), member) for name, member, _ in routes]


def version_in(cluster: Cluster, name: bytes, reply: Reply) -> bytes | None:
    """Return the version in a reply about `name`; `None` if there is none, or its node failed."""
    if not isinstance(reply, tuple):
        return None
    try:
        flags, data = cluster.payloads.open(name, reply)
    except DecodeError:
        return None
    return data if flags == MARK_FLAGS and len(data) == VERSION_SIZE else None


async def get_or_create(cluster: Cluster, tags: Sequence[Key]) -> list[bytes] | None:
    """Return the versions of the tags, and create missing ones; `None` if a node failed."""
    if not tags:
        return []
    placed = places(cluster, tags)
    deadline = cluster.deadline()
    replies = await cluster.ask_many([(member, Get(name)) for name, member in placed], deadline)
    versions: list[bytes] = []
    for (name, member), reply in zip(placed, replies, strict=True):
        if isinstance(reply, NodeError):
            return None
        version = version_in(cluster, name, reply)
        version = version or await _create(cluster, member, name, deadline)
        if version is None:
            return None
        versions.append(version)
    return versions


async def _create(cluster: Cluster, member: Member, name: bytes, deadline: float) -> bytes | None:
    """Create a version for a tag that has none; return another client's if that one is faster."""
    fresh = cluster.io.token()[:VERSION_SIZE]
    payload = cluster.payloads.seal(name, (MARK_FLAGS, fresh))
    stored = await cluster.ask(member, Set(name, payload, None, When.ABSENT), deadline)
    if stored is True:
        return fresh
    return version_in(cluster, name, await cluster.ask(member, Get(name), deadline))


async def invalidate(cluster: Cluster, tag: Key) -> bool:
    """Invalidate every value with this tag; return whether the tag's node has confirmed it."""
    # It is not known which recomputes in progress have this tag: no caller joins any of them.
    cluster.invalidated_all()
    ((name, member),) = places(cluster, [tag])
    reply = await cluster.ask(member, Delete(name))
    return not isinstance(cluster.unwrap(reply, reply), NodeError)
