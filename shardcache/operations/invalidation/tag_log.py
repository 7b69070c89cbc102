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
from shardcache.core.reserved_keys import TAG_LOGS, own_key
from shardcache.core.values.flags import MARK_FLAGS
from shardcache.errors import DecodeError, NodeError, NodeRefusedError
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
    return own_key(TAG_LOGS, cluster.keys.canonical(b""))


async def ends(cluster: Cluster) -> Ends:
    """Return where the log of each node ends; begin a log on nodes that have none."""
    deadline = cluster.deadline()
    replies = await _read(cluster, cluster.reachable, deadline)
    without = {
        member: When.ABSENT if reply is None else When.ALWAYS  # in place of what is no log
        for member, reply in replies.items()
        if not _is_failure(reply) and not _entries(cluster, reply)
    }
    if without:
        replies |= await _begin(cluster, without, deadline)
    return {member: _end(_entries(cluster, reply)) for member, reply in replies.items()}


async def _begin(
    cluster: Cluster, without: Mapping[Member, When], deadline: float
) -> dict[Member, Reply]:
    """Begin a log on these nodes; return the logs there, another client's where that one is faster."""
    log = _seal(cluster, [cluster.io.token()[:_HALF] + bytes(_HALF)])
    asks = [(member, Set(name_of(cluster), log, None, when)) for member, when in without.items()]
    replies = await cluster.ask_many(asks, deadline)
    begun: dict[Member, Reply] = {
        member: log for (member, _), reply in zip(asks, replies, strict=True) if reply is True
    }
    others = [member for member in without if member not in begun]
    return {**begun, **await _read(cluster, others, deadline)} if others else begun


async def has_logged(
    cluster: Cluster, places: Sequence[tuple[bytes, Member]], since: Ends
) -> bool | None:
    """Return whether a tag was logged `since` the logs ended there.

    `None` means that no tag is known to be, and that the node of one failed. `places` are the names
    of the tags' versions with their members. A log of which the end is not found any more may have
    had any tag.
    """
    members = list(dict.fromkeys(member for _, member in places))
    logs = await _read(cluster, members, cluster.deadline())
    unknown = False
    for tag, member in places:
        entries, end = _entries(cluster, logs[member]), since.get(member)
        if end is None or _is_failure(logs[member]):
            unknown = True
        elif _may_have(entries, end, tag):
            return True
    return None if unknown else False


async def add(cluster: Cluster, member: Member, tag: bytes, deadline: float) -> NodeError | None:
    """Log a tag on its node, if that has a log; return the node's error if that is not confirmed."""
    name = name_of(cluster)
    for _ in range(TRIES):
        found = await cluster.ask(member, Gets(name), deadline)
        if isinstance(found, NodeRefusedError):
            break
        if not isinstance(found, tuple):
            return found if isinstance(found, NodeError) else None
        payload, token = found
        entry = cluster.io.token()[:_HALF] + _digest(tag)
        entries = [*_entries(cluster, payload), entry][-MOST_ENTRIES:]
        reply = await cluster.ask(member, Cas(name, _seal(cluster, entries), token), deadline)
        if reply is not False:  # stored, or the log is gone
            return reply if isinstance(reply, NodeError) else None
    # Too many clients add at once, or it is no log: without it, recomputes in progress store nothing.
    reply = await cluster.ask(member, Delete(name), deadline)
    return reply if isinstance(reply, NodeError) else None


async def _read(
    cluster: Cluster, members: Sequence[Member], deadline: float
) -> dict[Member, Reply]:
    """Return the reply of each member to a read of its log."""
    command = Get(name_of(cluster))
    replies = await cluster.ask_many([(member, command) for member in members], deadline)
    return dict(zip(members, replies, strict=True))


def _is_failure(reply: Reply) -> bool:
    """Return whether the node failed. It refuses to read what is of a type that is not ours."""
    return isinstance(reply, NodeError) and not isinstance(reply, NodeRefusedError)


def _may_have(entries: Sequence[bytes], end: bytes, tag: bytes) -> bool:
    """Return whether a log may have had a tag after the entry `end`."""
    if end not in entries:
        return True
    later = entries[entries.index(end) + 1 :]
    return _digest(tag) in {entry[_HALF:] for entry in later}


def _end(entries: Sequence[bytes]) -> bytes | None:
    return entries[-1] if entries else None


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
