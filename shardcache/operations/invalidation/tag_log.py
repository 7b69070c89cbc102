"""The log of invalidated tags on each node, for values whose tags depend on the result.

The versions of such tags can be read only after the recompute, when the tags are known. An
invalidation during the recompute would then go unnoticed: its version is already the new one. So a
recompute notes the end of each node's log when it begins. It looks at the logs again once it has the
versions of its tags, and its value is void if one of them was logged meanwhile.

`invalidate` (in `tags`) logs a tag before it removes the version. A log that is lost, or too long for
what a recompute has noted, makes the value void as well. A node has no log until the first recompute
that needs it, and until then an invalidation is as cheap as without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

from shardcache.core.commands import Cas, Delete, Get, Gets, Payload, Reply, Set, When
from shardcache.core.reserved_keys import TAG_LOGS
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member

MOST_ENTRIES: Final = 128
TRIES: Final = 5  # to add an entry to a log to which other clients add as well

_HALF: Final = 8  # bytes of an entry's random part, and of the digest of its tag
_ENTRY: Final = 2 * _HALF

# The last entry of each node's log; `None` for a node that failed.
Ends = Mapping[Member, bytes | None]


def name_of(cluster: Cluster) -> bytes:
    """Return the name under which each node keeps the log of a namespace."""
    return TAG_LOGS + cluster.keys.canonical(b"")


async def ends(cluster: Cluster) -> Ends:
    """Return where the log of each node ends; begin a log on nodes that have none."""
    members = list(cluster.members.values())
    name, deadline = name_of(cluster), cluster.deadline()
    replies = await cluster.ask_many([(member, Get(name)) for member in members], deadline)
    return {
        member: await _end(cluster, member, reply, deadline)
        for member, reply in zip(members, replies, strict=True)
    }


async def _end(cluster: Cluster, member: Member, reply: Reply, deadline: float) -> bytes | None:
    """Return the last entry of a log; begin one if there is none. `None` if the node failed."""
    name = name_of(cluster)
    entries = _entries(cluster, reply)
    if entries or isinstance(reply, NodeError):
        return entries[-1] if entries else None
    first = cluster.io.token()[:_HALF] + bytes(_HALF)
    when = When.ABSENT if reply is None else When.ALWAYS  # in place of what cannot be read
    stored = await cluster.ask(member, Set(name, _seal(cluster, [first]), None, when), deadline)
    if stored is True:
        return first
    entries = _entries(cluster, await cluster.ask(member, Get(name), deadline))
    return entries[-1] if entries else None


async def has_logged(
    cluster: Cluster, places: Sequence[tuple[bytes, Member]], since: Ends
) -> bool | None:
    """Return whether a tag was logged `since` the logs ended there; `None` if a tag's node failed.

    `places` are the names of the tags' versions with their members. A log of which the end is not
    found any more may have had any tag.
    """
    members = list(dict.fromkeys(member for _, member in places))
    name = name_of(cluster)
    replies = await cluster.ask_many([(member, Get(name)) for member in members])
    logs = dict(zip(members, replies, strict=True))
    if any(isinstance(logs[each], NodeError) or since.get(each) is None for each in members):
        return None
    for tag, member in places:
        entries, end = _entries(cluster, logs[member]), since[member]
        if end not in entries:
            return True
        later = entries[entries.index(end) + 1 :]
        if _digest(tag) in {entry[_HALF:] for entry in later}:
            return True
    return False


async def add(cluster: Cluster, member: Member, tag: bytes) -> NodeError | None:
    """Log a tag on its node, if that has a log; return the node's error if that is not confirmed."""
    name, deadline = name_of(cluster), cluster.deadline()
    for _ in range(TRIES):
        found = await cluster.ask(member, Gets(name), deadline)
        if not isinstance(found, tuple):
            return found if isinstance(found, NodeError) else None
        payload, token = found
        entry = cluster.io.token()[:_HALF] + _digest(tag)
        entries = [*_entries(cluster, payload), entry][-MOST_ENTRIES:]
        reply = await cluster.ask(member, Cas(name, _seal(cluster, entries), token), deadline)
        if reply is not False:  # stored, or the log is gone
            return reply if isinstance(reply, NodeError) else None
    # Too many clients add at once: without their log, recomputes in progress store nothing.
    reply = await cluster.ask(member, Delete(name), deadline)
    return reply if isinstance(reply, NodeError) else None


def _entries(cluster: Cluster, reply: Reply) -> list[bytes]:
    """Return the entries of a log, the oldest first; none if there is no log, or it cannot be read."""
    if not isinstance(reply, tuple):
        return []
    try:
        flags, data = cluster.payloads.open(name_of(cluster), reply)
    except DecodeError:
        return []
    if flags != MARK_FLAGS or len(data) % _ENTRY:
        return []
    return [data[place : place + _ENTRY] for place in range(0, len(data), _ENTRY)]


def _seal(cluster: Cluster, entries: Sequence[bytes]) -> Payload:
    return cluster.payloads.seal(name_of(cluster), (MARK_FLAGS, b"".join(entries)))


def _digest(tag: bytes) -> bytes:
    return blake2b(tag, digest_size=_HALF).digest()
