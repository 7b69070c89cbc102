"""Operations on many keys: all nodes are asked at once, and the results of those that answer kept."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeGuard

from shardcache.core.commands import (
    REPLIES,
    Command,
    DeleteMany,
    GetMany,
    Hits,
    Items,
    Payload,
    Reply,
    SetMany,
)
from shardcache.core.keys import check_items, check_keys
from shardcache.core.lifetimes import TTL, lifetime
from shardcache.core.values.payloads import Decode
from shardcache.errors import DecodeError, NodeError, NodeRefusedError, PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Groups, Key

Failed = dict[Key, NodeError | DecodeError]

_MISSING: Final[Any] = object()  # in place of a value


def get_many(cluster: Cluster, keys: Iterable[Key]) -> Coroutine[Any, Any, dict[Key, Any]]:
    """Return the values of the keys found, under the caller's own keys."""
    if type(keys) is not list:
        check_keys("get_many", keys)
    if cluster.observes_operations:
        asked = list(keys)
        return report(cluster, "get_many", len(asked), lambda: _get_many(cluster, asked), len)
    return _get_many(cluster, keys)


async def _get_many(cluster: Cluster, keys: Iterable[Key]) -> dict[Key, Any]:
    groups = cluster.group(keys)
    found: dict[Key, Any] = {}
    failed: Failed = {}
    decode, plain = cluster.payloads.decoder(), cluster.payloads.bytes_flags
    commands = [GetMany(tuple(group.values())) for group in groups.values()]
    for member, group, replies in await _ask_groups(cluster, groups, commands):
        # Bytes are their own value, and spared the look at each, for there are many. Empty ones may be
        # memcached's stub.
        if type(replies) is Hits and replies.flags in plain and all(replies.data):
            found.update(zip(group, replies.data, strict=True))
            member.hits += len(group)
        else:
            _read_group(cluster, member, group, replies, decode, found, failed)
    if failed and cluster.raises:
        raise _failure(groups, failed, found=found)
    return found


def _read_group(  # noqa: PLR0913, PLR0917 - what one loop has at hand
    cluster: Cluster,
    member: Member,
    group: Mapping[Key, bytes],
    replies: Sequence[Any],  # of a `GetMany`
    decode: Decode,
    found: dict[Key, Any],
    failed: Failed,
) -> None:
    """Add each value of a node to `found`, or its error to `failed`; count hits and misses."""
    plain, read = cluster.payloads.bytes_flags, cluster.value
    hits = misses = 0
    taken = iter(replies)
    if type(replies) is list:
        # Each is dropped once it is decoded, so that the next large value takes its memory.
        replies.reverse()
        taken = iter(replies.pop, _MISSING)
    for key, reply in zip(group, taken, strict=False):
        # Misses, and bytes, are spared the call.
        if reply is None:
            misses += 1
            continue
        if type(reply) is not tuple:
            failed[key] = reply
            continue
        if reply[0] in plain and reply[1]:
            found[key] = reply[1]
            hits += 1
            continue
        try:
            value = read(member, group[key], reply, _MISSING, decode)
        except DecodeError as error:
            failed[key] = error
        else:
            if value is not _MISSING:
                found[key] = value
    member.hits += hits
    member.misses += misses


def set_many(
    cluster: Cluster, items: Mapping[Key, Any], ttl: TTL
) -> Coroutine[Any, Any, list[Key]]:
    """Store every item; return the keys that could not be stored."""
    if type(items) is not dict:
        check_items("set_many", items)
    if cluster.observes_operations:
        return report(cluster, "set_many", len(items), lambda: _set_many(cluster, items, ttl))
    return _set_many(cluster, items, ttl)


async def _set_many(cluster: Cluster, items: Mapping[Key, Any], ttl: TTL) -> list[Key]:
    seconds = lifetime(ttl, cluster.default_ttl)
    groups = cluster.group(items)
    names = list(chain.from_iterable(map(dict.values, groups.values())))
    values = list(map(items.__getitem__, chain.from_iterable(groups.values())))
    # Storing with a ttl of 0 is a delete.
    commands = (
        _deletes(groups) if seconds == 0 else _stores(cluster, groups, names, values, seconds)
    )
    cluster.invalidated(*names)
    failed: Failed = {}
    refused: list[tuple[Member, Command]] = []
    deadline = cluster.deadline()
    for member, group, replies in await _ask_groups(cluster, groups, commands, deadline):
        if replies.count(True) == len(replies):
            continue
        errors = {key: each for key, each in zip(group, replies, strict=True) if _failed(each)}
        failed |= errors
        left = [group[key] for key, error in errors.items() if isinstance(error, NodeRefusedError)]
        if left:  # memcached drops the old value of a refused overwrite, Redis keeps it
            refused.append((member, DeleteMany(left)))
    if refused:
        await cluster.ask_many(refused, deadline)
    if failed and cluster.raises:
        raise _failure(groups, failed, succeeded=[key for key in items if key not in failed])
    return list(failed)


def _stores(
    cluster: Cluster,
    groups: Groups,
    names: list[bytes],
    values: Sequence[Any],
    seconds: float | None,
) -> list[Command]:
    """Return the command that stores the values of each group; names and values are in their order."""
    payloads, encode = cluster.payloads, cluster.payloads.encode
    alike = payloads.encode_alike(values)
    encoded: list[Payload] = []
    if alike is None:
        encoded = [encode(name, value, seconds) for name, value in zip(names, values, strict=True)]
    commands: list[Command] = []
    stop = 0
    for group in groups.values():
        start, stop = stop, stop + len(group)
        if alike is None:
            items: Sequence[tuple[bytes, Payload]]
            items = list(zip(names[start:stop], encoded[start:stop], strict=True))
        else:
            flags, data = alike
            items = Items(names[start:stop], flags, data[start:stop])
        commands.append(SetMany(items, seconds))
    return commands


def _deletes(groups: Groups) -> list[Command]:
    """Return the command that deletes the keys of each group."""
    return [DeleteMany(tuple(group.values())) for group in groups.values()]


def delete_many(cluster: Cluster, keys: Iterable[Key]) -> Coroutine[Any, Any, int]:
    """Remove every key; return how many were there."""
    if type(keys) is not list:
        check_keys("delete_many", keys)
    if cluster.observes_operations:
        asked = list(keys)
        return report(cluster, "delete_many", len(asked), lambda: _delete_many(cluster, asked))
    return _delete_many(cluster, keys)


async def _delete_many(cluster: Cluster, keys: Iterable[Key]) -> int:
    groups = cluster.group(keys)
    cluster.invalidated(*chain.from_iterable(map(dict.values, groups.values())))
    commands = _deletes(groups)
    removed = 0
    failed: Failed = {}
    for _, group, replies in await _ask_groups(cluster, groups, commands):
        found = replies.count(True)
        removed += found
        if found + replies.count(False) < len(replies):
            failed.update(
                (key, each) for key, each in zip(group, replies, strict=True) if _failed(each)
            )
    if failed and cluster.raises:
        answered = [key for group in groups.values() for key in group if key not in failed]
        raise _failure(groups, failed, succeeded=answered)
    return removed


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
    commands: Sequence[Command],
    deadline: float | None = None,
) -> list[tuple[Member, dict[Key, bytes], Any]]:  # replies are of the command's type
    """Ask all nodes at once, each about its group; a failed node's error stands for each of its keys."""
    answers = await cluster.ask_many(list(zip(groups, commands, strict=True)), deadline)
    return [
        (
            member,
            group,
            answer if isinstance(answer, REPLIES) else _spread(member, answer, len(group)),
        )
        for (member, group), answer in zip(groups.items(), answers, strict=True)
    ]


def _spread(member: Member, answer: Reply, count: int) -> list[Any]:
    if isinstance(answer, NodeError):
        return [answer] * count
    raise TypeError(f"{member.node}: a call over many keys was answered {answer!r}")


def _failed(reply: Any) -> TypeGuard[NodeError]:
    return isinstance(reply, NodeError)
