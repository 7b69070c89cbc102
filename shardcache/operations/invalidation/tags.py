"""The versions of tags. A value stored with an outdated version of one of its tags is a miss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shardcache.core.commands import REPLIES, Command, Delete, Get, GetMany, Reply, Set, When
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.core.values.envelopes import VERSION_SIZE
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import StandIn
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.invalidation import tag_log

UNREACHABLE: Final = b""  # in place of the version of a tag whose node did not answer


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


async def current(cluster: Cluster, tags: Sequence[Key]) -> list[bytes | None]:
    """Return the current versions of tags, with one command for each node.

    The version of a tag that has none is `None`, that of a tag whose node failed is `UNREACHABLE`.
    """
    placed = places(cluster, tags)
    versions = await _read(cluster, placed, cluster.deadline())
    return [versions[name] for name, _ in placed]


async def get_or_create(cluster: Cluster, tags: Sequence[Key]) -> list[bytes] | None:
    """Return the versions of the tags, and create missing ones; `None` if a node failed."""
    if not tags:
        return []
    placed, deadline = places(cluster, tags), cluster.deadline()
    versions = await _read(cluster, placed, deadline)
    missing = {name: member for name, member in placed if versions[name] is None}
    if missing:
        versions |= await _create(cluster, missing, deadline)
    found = [version for name, _ in placed if (version := versions[name])]
    return found if len(found) == len(placed) else None


def seen_version(cluster: Cluster, name: bytes, reply: Reply) -> bytes | None:
    """Return the version in a reply about `name`; `UNREACHABLE` if its node failed."""
    return UNREACHABLE if isinstance(reply, NodeError) else version_in(cluster, name, reply)


async def _read(
    cluster: Cluster, placed: Iterable[tuple[bytes, Member]], deadline: float
) -> dict[bytes, bytes | None]:
    """Return the versions under these names, as `current` does."""
    names: dict[Member, list[bytes]] = {}
    for name, member in placed:
        names.setdefault(member, []).append(name)
    asks = [(member, GetMany(each)) for member, each in names.items()]
    found: dict[bytes, bytes | None] = {}
    for (_, command), reply in zip(asks, await cluster.ask_many(asks, deadline), strict=True):
        replies = reply if isinstance(reply, REPLIES) else [reply] * len(command.keys)
        for name, each in zip(command.keys, replies, strict=True):
            found[name] = seen_version(cluster, name, each)
    return found


async def _create(
    cluster: Cluster, missing: Mapping[bytes, Member], deadline: float
) -> dict[bytes, bytes | None]:
    """Create versions for tags that have none; return another client's where that one is faster."""
    fresh = {name: cluster.io.token()[:VERSION_SIZE] for name in missing}
    seal = cluster.payloads.seal
    asks = [
        (member, Set(name, seal(name, (MARK_FLAGS, fresh[name])), None, When.ABSENT))
        for name, member in missing.items()
    ]
    replies = await cluster.ask_many(asks, deadline)
    lost = [
        (name, member)
        for (name, member), reply in zip(missing.items(), replies, strict=True)
        if reply is not True
    ]
    versions: dict[bytes, bytes | None] = dict(fresh)
    if lost:
        versions |= await _read(cluster, lost, deadline)
    return versions


async def invalidate(cluster: Cluster, tag: Key) -> bool:
    """Invalidate every value with this tag; return whether the tag's own node has confirmed it."""
    # It is not known which recomputes in progress have this tag: no caller joins any of them.
    cluster.invalidated_all()
    ((name, member),) = places(cluster, [tag])
    # One deadline for all steps: a change of nodes waits for as long as one call may take.
    deadline = cluster.deadline()
    # While the tag moves to another node, some processes look at the log of its old one.
    holders = cluster.holders(name, member)
    read_log = Get(tag_log.name_of(cluster))
    asks: list[tuple[Member, Command]] = [(each, read_log) for each in holders]
    asks.append((member, Delete(name)))
    *logs, reply = await cluster.ask_many(asks, deadline)
    logging = [each for each, log in zip(holders, logs, strict=True) if log is not None]
    if logging:
        # Values may have tags by their results: a tag is logged before its version is removed.
        failures = [await tag_log.add(cluster, each, name, deadline) for each in logging]
        failure = next((each for each in failures if each is not None), None)
        reply = failure or await cluster.ask(member, Delete(name), deadline)
    confirmed = not isinstance(cluster.unwrap(reply, reply), NodeError)
    return confirmed and not isinstance(member, StandIn)
