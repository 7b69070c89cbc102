"""What is done with many keys: every node asked at once, and what answered is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shardcache.core.commands import Command, DeleteMany, GetMany, Reply, SetMany
from shardcache.core.lifetimes import TTL, lifetime
from shardcache.core.values.flags import BARE_STUB, is_mark
from shardcache.errors import DecodeError, NodeError, NodeRefusedError, PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key

# A group holds, for one node, the canonical names of the callers' keys.
Groups = dict[Member, dict[Key, bytes]]
Failed = dict[Key, NodeError | DecodeError]


async def get_many(cluster: Cluster, keys: Iterable[Key]) -> dict[Key, Any]:
    """Give the values of the keys found, under the caller's own keys."""
    groups = _grouped(cluster, keys)
    found: dict[Key, Any] = {}
    failed: Failed = {}
    decode, plain = cluster.payloads.decoder(), cluster.payloads.bytes_flags
    for member, asked, names, replies in await _ask_groups(cluster, groups, GetMany):
        hits = 0
        for key, name, reply in zip(asked, names, replies, strict=True):
            # A hit goes straight to its decoder, for there are many; of the marks no decoder takes
            # any but memcached's own.
            if type(reply) is not tuple or reply == BARE_STUB:
                _miss(member, reply, key, failed)
                continue
            if reply[0] in plain:  # bytes are what they are
                found[key] = reply[1]
                hits += 1
                continue
            try:
                found[key] = decode(name, reply)
                hits += 1
            except DecodeError as error:
                if is_mark(reply):
                    member.misses += 1
                else:
                    _note_undecodable(cluster, member, name, error, key, failed)
        member.hits += hits
    if failed and cluster.raises:
        raise _failure(groups, failed, found=found)
    return found


def _miss(member: Member, reply: Any, key: Key, failed: Failed) -> None:
    """Put an error among the failed; count what is missing."""
    if isinstance(reply, NodeError):
        failed[key] = reply
    else:
        member.misses += 1


def _note_undecodable(  # noqa: PLR0913, PLR0917 - one of many, with where it goes
    cluster: Cluster, member: Member, name: bytes, error: DecodeError, key: Key, failed: Failed
) -> None:
    """Count bytes that cannot be decoded, and put their error among the failed if it is to be raised."""
    try:
        cluster.undecodable(member, name, error, None)
    except DecodeError:
        failed[key] = error


async def set_many(cluster: Cluster, items: Mapping[Key, Any], ttl: TTL) -> list[Key]:
    """Store every item; give the keys that could not be stored."""
    seconds = lifetime(ttl, cluster.default_ttl)
    groups = _grouped(cluster, items)
    payloads = {
        name: cluster.payloads.encode(name, items[key], seconds)
        for group in groups.values()
        for key, name in group.items()
    }

    def storing(names: list[bytes]) -> Command:
        if seconds == 0:  # stored for no time at all
            return DeleteMany(names)
        return SetMany([(name, payloads[name]) for name in names], seconds)

    failed: Failed = {}
    refused: list[tuple[Member, Command]] = []
    deadline = cluster.deadline()
    for member, keys, names, replies in await _ask_groups(cluster, groups, storing, deadline):
        errors = [reply if isinstance(reply, NodeError) else None for reply in replies]
        failed.update({key: error for key, error in zip(keys, errors, strict=True) if error})
        left = [
            name
            for name, error in zip(names, errors, strict=True)
            if isinstance(error, NodeRefusedError)
        ]
        if left:  # memcached drops the old value of a refused overwrite, Redis keeps it
            refused.append((member, DeleteMany(left)))
    await cluster.ask_many(refused, deadline)
    if failed and cluster.raises:
        stored = [key for key in items if key not in failed]
        raise _failure(groups, failed, succeeded=stored)
    return list(failed)


async def delete_many(cluster: Cluster, keys: Iterable[Key]) -> int:
    """Remove every key; give how many were there."""
    groups = _grouped(cluster, keys)
    for group in groups.values():
        for name in group.values():
            cluster.io.single_flight.forget(name)
    removed: list[Key] = []
    answered: list[Key] = []
    failed: Failed = {}
    for _, asked, _, replies in await _ask_groups(cluster, groups, DeleteMany):
        for key, reply in zip(asked, replies, strict=True):
            if isinstance(reply, NodeError):
                failed[key] = reply
                continue
            answered.append(key)
            if reply:
                removed.append(key)
    if failed and cluster.raises:
        raise _failure(groups, failed, succeeded=answered)
    return len(removed)


def _grouped(cluster: Cluster, keys: Iterable[Key]) -> Groups:
    """Give the keys by the node that holds them, each key once."""
    route = cluster.route
    groups: Groups = {}
    for key in keys:
        name, member = route(key)
        group = groups.get(member)
        if group is None:
            groups[member] = {key: name}
        else:
            group[key] = name
    return groups


def _failure(
    groups: Groups,
    failed: Failed,
    *,
    found: Mapping[Key, Any] | None = None,
    succeeded: Sequence[Key] = (),
) -> PartialFailureError:
    """Return the error of a call that failed for some of its keys."""
    total = sum(map(len, groups.values()))
    return PartialFailureError(
        failed, total=total, nodes=len(groups), found=found, succeeded=succeeded
    )


async def _ask_groups(
    cluster: Cluster,
    groups: Groups,
    command: Callable[[list[bytes]], Command],
    deadline: float | None = None,
) -> list[tuple[Member, list[Key], list[bytes], list[Any]]]:  # replies are of the command's type
    """Ask each node for its group at once; a failed node has its error for each of its keys."""
    split = [(member, list(group), list(group.values())) for member, group in groups.items()]
    asks = [(member, command(names)) for member, _, names in split]
    answers = await cluster.ask_many(asks, deadline)
    return [
        (member, keys, names, _spread(member, answer, len(keys)))
        for (member, keys, names), answer in zip(split, answers, strict=True)
    ]


def _spread(member: Member, answer: Reply, count: int) -> list[Any]:
    if isinstance(answer, NodeError):
        return [answer] * count
    if not isinstance(answer, list):
        raise TypeError(f"{member.node}: a call over many keys was answered {answer!r}")
    return answer
