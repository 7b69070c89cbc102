"""Operations on many keys: all nodes are asked at once, and the results of those that answer kept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

from shardcache.core.commands import Command, DeleteMany, GetMany, Reply, SetMany
from shardcache.core.lifetimes import TTL, lifetime
from shardcache.errors import DecodeError, NodeError, NodeRefusedError, PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Groups, Key

Failed = dict[Key, NodeError | DecodeError]

_MISSING: Final[Any] = object()  # in place of a value


def get_many(cluster: Cluster, keys: Iterable[Key]) -> Coroutine[Any, Any, dict[Key, Any]]:
    """Return the values of the keys found, under the caller's own keys."""
    if cluster.observes_operations:
        asked = list(keys)
        return report(cluster, "get_many", len(asked), lambda: _get_many(cluster, asked), len)
    return _get_many(cluster, keys)


async def _get_many(cluster: Cluster, keys: Iterable[Key]) -> dict[Key, Any]:
    groups = cluster.group(keys)
    found: dict[Key, Any] = {}
    failed: Failed = {}
    decode, plain, read = cluster.payloads.decoder(), cluster.payloads.bytes_flags, cluster.value
    for member, asked, names, replies in await _ask_groups(cluster, groups, GetMany):
        hits = 0
        for key, name, reply in zip(asked, names, replies, strict=True):
            # Bytes are their own value, and spared the call, for there are many. Empty ones may be
            # memcached's stub.
            if type(reply) is tuple:
                if reply[0] in plain and reply[1]:
                    found[key] = reply[1]
                    hits += 1
                    continue
            elif reply is not None:
                failed[key] = reply
                continue
            try:
                value = read(member, name, reply, _MISSING, decode)
            except DecodeError as error:
                failed[key] = error
            else:
                if value is not _MISSING:
                    found[key] = value
        member.hits += hits
    if failed and cluster.raises:
        raise _failure(groups, failed, found=found)
    return found


def set_many(
    cluster: Cluster, items: Mapping[Key, Any], ttl: TTL
) -> Coroutine[Any, Any, list[Key]]:
    """Store every item; return the keys that could not be stored."""
    if cluster.observes_operations:
        return report(cluster, "set_many", len(items), lambda: _set_many(cluster, items, ttl))
    return _set_many(cluster, items, ttl)


async def _set_many(cluster: Cluster, items: Mapping[Key, Any], ttl: TTL) -> list[Key]:
    seconds = lifetime(ttl, cluster.default_ttl)
    groups = cluster.group(items)
    payloads = {
        name: cluster.payloads.encode(name, items[key], seconds)
        for group in groups.values()
        for key, name in group.items()
    }

    def command(names: list[bytes]) -> Command:
        if seconds == 0:  # storing with a ttl of 0 is a delete
            return DeleteMany(names)
        return SetMany([(name, payloads[name]) for name in names], seconds)

    for name in payloads:
        cluster.invalidated(name)
    failed: Failed = {}
    refused: list[tuple[Member, Command]] = []
    deadline = cluster.deadline()
    for member, keys, names, replies in await _ask_groups(cluster, groups, command, deadline):
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


def delete_many(cluster: Cluster, keys: Iterable[Key]) -> Coroutine[Any, Any, int]:
    """Remove every key; return how many were there."""
    if cluster.observes_operations:
        asked = list(keys)
        return report(cluster, "delete_many", len(asked), lambda: _delete_many(cluster, asked))
    return _delete_many(cluster, keys)


async def _delete_many(cluster: Cluster, keys: Iterable[Key]) -> int:
    groups = cluster.group(keys)
    for group in groups.values():
        for name in group.values():
            cluster.invalidated(name)
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


def _failure(
    groups: Groups,
    failed: Failed,
    *,
    found: Mapping[Key, Any] | None = None,
    succeeded: Sequence[Key] = (),
) -> PartialFailureError:
    """Return the error of an operation that failed for some of its keys."""
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
    """Ask all nodes at once, each for its group; a failed node's error stands for each of its keys."""
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
