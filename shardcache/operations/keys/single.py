"""Operations on one key."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Hashable
from typing import Any, Final

from shardcache.core.commands import (
    Cas,
    CasKeep,
    Command,
    Delete,
    DeleteCas,
    Get,
    Gets,
    Peek,
    Reply,
    Set,
    Touch,
    When,
)
from shardcache.core.lifetimes import KEEP, TTL, Keep, lifetime
from shardcache.core.values.flags import SIGNED
from shardcache.errors import DecodeError, NodeRefusedError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import token_for_caller
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys.keeping import store_keeping

TOUCH_TRIES: Final = 3  # rounds of read and store, for a value that other writers keep changing
_FAILED: Final[Any] = object()  # in place of a reply
_MISSING: Final[Any] = object()  # in place of a value

# Values and defaults are the caller's own objects, hence `Any`.


def get(cluster: Cluster, key: Key, default: Any) -> Coroutine[Any, Any, Any]:
    """Return the key's value, or `default`."""
    if cluster.observes_operations:
        return _report_get(cluster, key, default)
    return _get(cluster, key, default)


async def _report_get(cluster: Cluster, key: Key, default: Any) -> Any:
    value = await report(
        cluster,
        "get",
        1,
        lambda: _get(cluster, key, _MISSING),
        lambda value: value is not _MISSING,
    )
    return default if value is _MISSING else value


async def _get(cluster: Cluster, key: Key, default: Any) -> Any:
    name, member, _ = cluster.route(key)
    payload = cluster.unwrap(await cluster.ask(member, Get(name)), None)
    return cluster.value(member, name, payload, default)


def gets(
    cluster: Cluster, key: Key, default: Any
) -> Coroutine[Any, Any, tuple[Any, Hashable | None]]:
    """Return the key's value with a token for `cas`, or `default` with `None`."""
    if cluster.observes_operations:
        return report(
            cluster,
            "gets",
            1,
            lambda: _gets(cluster, key, default),
            lambda found: found[1] is not None,
        )
    return _gets(cluster, key, default)


async def _gets(cluster: Cluster, key: Key, default: Any) -> tuple[Any, Hashable | None]:
    name, member, _ = cluster.route(key)
    found = cluster.unwrap(await cluster.ask(member, Gets(name)), None)
    payload, token = found or (None, None)
    value = cluster.value(member, name, payload, _MISSING)
    return (default, None) if value is _MISSING else (value, token_for_caller(member, token))


def store(
    cluster: Cluster, key: Key, value: Any, ttl: TTL, when: When
) -> Coroutine[Any, Any, bool]:
    """Store the key on the condition `when`; return whether it was stored."""
    if cluster.observes_operations:
        return report(cluster, when.value, 1, lambda: _store(cluster, key, value, ttl, when))
    return _store(cluster, key, value, ttl, when)


async def _store(cluster: Cluster, key: Key, value: Any, ttl: TTL, when: When) -> bool:
    name, member, _ = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    payload = cluster.payloads.encode(name, value, seconds)
    if when is not When.ABSENT:  # an add never replaces a value
        cluster.invalidated(name)
    if seconds == 0:
        return await _store_expired(cluster, member, name, when)
    deadline = cluster.deadline()
    reply = await cluster.ask(member, Set(name, payload, seconds, when), deadline)
    if when is When.ABSENT:
        return bool(cluster.unwrap(reply, default=False))
    return await end_store(cluster, member, name, reply, deadline)


async def end_store(
    cluster: Cluster, member: Member, name: bytes, reply: Reply, deadline: float
) -> bool:
    """Return the result of an overwrite; delete the old value if the new one was refused.

    memcached drops it by itself, Redis keeps it.
    """
    if isinstance(reply, NodeRefusedError):
        await cluster.ask(member, Delete(name), deadline)
    return bool(cluster.unwrap(reply, default=False))


def cas(
    cluster: Cluster, key: Key, value: Any, token: Hashable, ttl: TTL | Keep
) -> Coroutine[Any, Any, bool | None]:
    """Store the key if it has not changed since `gets` returned `token`."""
    if cluster.observes_operations:
        return report(cluster, "cas", 1, lambda: _cas(cluster, key, value, token, ttl))
    return _cas(cluster, key, value, token, ttl)


async def _cas(
    cluster: Cluster, key: Key, value: Any, token: Hashable, ttl: TTL | Keep
) -> bool | None:
    name, member, _ = cluster.home(key)  # a token is of one node: there is no stand-in for it
    if ttl is KEEP:
        return await _cas_keep(cluster, member, name, value, token)
    seconds = lifetime(ttl, cluster.default_ttl)
    payload = cluster.payloads.encode(name, value, seconds)
    cluster.invalidated(name)
    expired = seconds == 0  # stored for a second, then deleted: no server does both at once
    deadline = cluster.deadline()
    command = Cas(name, payload, token, 1.0 if expired else seconds)
    reply = await cluster.ask(member, command, deadline)
    if expired and reply is True:
        cluster.invalidated(name)
        await cluster.ask(member, Delete(name), deadline)
    return await _end_cas(cluster, member, name, token, reply, deadline)


async def _cas_keep(
    cluster: Cluster, member: Member, name: bytes, value: Any, token: Hashable
) -> bool | None:
    """Store with the expiry of the value that is replaced."""
    deadline = cluster.deadline()
    payload = cluster.payloads.encode(name, value)
    if payload[0] & SIGNED:  # a signature ends with its value
        found = await cluster.ask(member, Peek(name), deadline)
        if not isinstance(found, tuple):
            gone: bool | None = cluster.unwrap(found, default=False)
            return gone
        _, left = found
        payload = cluster.payloads.encode(name, value, None if left == math.inf else left)
    cluster.invalidated(name)
    reply = await store_keeping(cluster, member, CasKeep(name, payload, token), deadline)
    return await _end_cas(cluster, member, name, token, reply, deadline)


async def _end_cas(  # noqa: PLR0913, PLR0917 - what was asked, and its reply
    cluster: Cluster,
    member: Member,
    name: bytes,
    token: Hashable,
    reply: Reply,
    deadline: float,
) -> bool | None:
    """Return the result of a `cas`; delete the old value if the new one was refused."""
    if isinstance(reply, NodeRefusedError):  # as for every store, unless another write came first
        await cluster.ask(member, DeleteCas(name, token), deadline)
    stored: bool | None = cluster.unwrap(reply, default=False)
    return stored


def delete(cluster: Cluster, key: Key) -> Coroutine[Any, Any, bool]:
    """Remove the key; return whether it was there. A recompute of it in progress is void."""
    if cluster.observes_operations:
        return report(cluster, "delete", 1, lambda: _delete(cluster, key))
    return _delete(cluster, key)


async def _delete(cluster: Cluster, key: Key) -> bool:
    name, member, _ = cluster.route(key)
    cluster.invalidated(name)
    return bool(cluster.unwrap(await cluster.ask(member, Delete(name)), default=False))


def touch(cluster: Cluster, key: Key, ttl: TTL) -> Coroutine[Any, Any, bool]:
    """Set the key's expiry; return whether the key was there."""
    if cluster.observes_operations:
        return report(cluster, "touch", 1, lambda: _touch(cluster, key, ttl))
    return _touch(cluster, key, ttl)


async def _touch(cluster: Cluster, key: Key, ttl: TTL) -> bool:
    name, member, _ = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    if seconds == 0:
        return await _delete(cluster, key)
    if cluster.payloads.signs:
        return await _touch_signed(cluster, member, name, seconds)
    return bool(cluster.unwrap(await cluster.ask(member, Touch(name, seconds)), default=False))


async def _touch_signed(
    cluster: Cluster, member: Member, name: bytes, seconds: float | None
) -> bool:
    """Store the value again, with a signature for its new lifetime."""
    payloads, deadline = cluster.payloads, cluster.deadline()
    for _ in range(TOUCH_TRIES):
        found = cluster.unwrap(await cluster.ask(member, Gets(name), deadline), None)
        if found is None:
            return False
        payload, token = found
        command: Command = Touch(name, seconds)
        if payload[0] & SIGNED:
            try:
                opened = payloads.open(name, payload)
            except DecodeError as error:
                cluster.undecodable(member, name, error, default=None)
                return False
            command = Cas(name, payloads.seal(name, opened, seconds), token, seconds)
        reply = cluster.unwrap(await cluster.ask(member, command, deadline), default=None)
        if reply is not False:  # else another write came in between
            return reply is True
    return False


async def _store_expired(cluster: Cluster, member: Member, name: bytes, when: When) -> bool:
    """Store with a ttl of 0: delete the key, except for an `add`, which only looks for it."""
    if when is When.ABSENT:
        return cluster.unwrap(await cluster.ask(member, Get(name)), _FAILED) is None
    removed = cluster.unwrap(await cluster.ask(member, Delete(name)), _FAILED)
    return removed is not _FAILED and (when is When.ALWAYS or bool(removed))
