"""What is done with one key."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, SupportsIndex

from shardcache.core.commands import (
    Cas,
    Command,
    Delete,
    DeleteCas,
    Get,
    Gets,
    Incr,
    Set,
    Touch,
    When,
)
from shardcache.core.lifetimes import TTL, lifetime
from shardcache.core.numeric import whole
from shardcache.core.values.flags import SIGNED
from shardcache.errors import DecodeError, NodeRefusedError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key

COUNTER_MAX: Final = 2**63 - 1  # the most that every server can hold
COUNTER_TRIES: Final = 3  # a counter that vanishes between two of these is not worth more
TOUCH_TRIES: Final = 3  # a value that changes between two of these was stored anew in any case
_FAILED: Final[Any] = object()  # in place of a reply

# Values and defaults are the caller's own objects, hence `Any`.


async def get(cluster: Cluster, key: Key, default: Any) -> Any:
    """Give the key's value, or `default`."""
    name, member = cluster.route(key)
    payload = cluster.unwrap(await cluster.ask(member, Get(name)), None)
    return cluster.value(member, name, payload, default)


async def gets(cluster: Cluster, key: Key, default: Any) -> tuple[Any, Hashable | None]:
    """Give the key's value with a token for `cas`, or `default` with `None`."""
    name, member = cluster.route(key)
    found = cluster.unwrap(await cluster.ask(member, Gets(name)), None)
    payload, token = found or (None, None)
    missing = object()
    value = cluster.value(member, name, payload, missing)
    return (default, None) if value is missing else (value, token)


async def store(cluster: Cluster, key: Key, value: Any, ttl: TTL, when: When) -> bool:
    """Store the key as `when` asks; say whether it was stored."""
    name, member = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    payload = cluster.payloads.encode(name, value, seconds)
    if seconds == 0:
        return await _store_expired(cluster, member, name, when)
    deadline = cluster.deadline()
    reply = await cluster.ask(member, Set(name, payload, seconds, when), deadline)
    if when is not When.ABSENT:
        await _drop_refused(cluster, member, name, reply, deadline)
    return bool(cluster.unwrap(reply, default=False))


async def cas(cluster: Cluster, key: Key, value: Any, token: Hashable, ttl: TTL) -> bool | None:
    """Store the key if nobody changed it since `gets` gave `token`."""
    name, member = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    payload = cluster.payloads.encode(name, value, seconds)
    expired = seconds == 0  # stored for a moment, then deleted: no server does both at once
    deadline = cluster.deadline()
    command = Cas(name, payload, token, 1.0 if expired else seconds)
    reply = await cluster.ask(member, command, deadline)
    if expired and reply is True:
        cluster.io.single_flight.forget(name)
        await cluster.ask(member, Delete(name), deadline)
    if isinstance(reply, NodeRefusedError):  # as for every store, unless somebody was faster
        await cluster.ask(member, DeleteCas(name, token), deadline)
    stored: bool | None = cluster.unwrap(reply, default=False)
    return stored


async def delete(cluster: Cluster, key: Key) -> bool:
    """Remove the key; say whether it was there. What is being made for it now is void."""
    name, member = cluster.route(key)
    cluster.io.single_flight.forget(name)
    return bool(cluster.unwrap(await cluster.ask(member, Delete(name)), default=False))


async def touch(cluster: Cluster, key: Key, ttl: TTL) -> bool:
    """Give the key a new expiry; say whether it was there."""
    name, member = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    if seconds == 0:
        return await delete(cluster, key)
    if cluster.payloads.signs:
        return await _touch_signed(cluster, member, name, seconds)
    return bool(cluster.unwrap(await cluster.ask(member, Touch(name, seconds)), default=False))


async def _touch_signed(
    cluster: Cluster, member: Member, name: bytes, seconds: float | None
) -> bool:
    """Store the value anew, signed for as long as it is to live now."""
    payloads, deadline = cluster.payloads, cluster.deadline()
    for _ in range(TOUCH_TRIES):
        found = cluster.unwrap(await cluster.ask(member, Gets(name), deadline), None)
        if found is None:
            return False
        payload, token = found
        command: Command = Touch(name, seconds)
        if payload[0] & SIGNED:
            try:
                held = payloads.open(name, payload)
            except DecodeError as error:
                cluster.undecodable(member, name, error, default=None)
                return False
            command = Cas(name, payloads.seal(name, held, seconds), token, seconds)
        reply = cluster.unwrap(await cluster.ask(member, command, deadline), default=None)
        if reply is not False:  # else somebody has changed it just now
            return reply is True
    return False


async def incr(
    cluster: Cluster, key: Key, delta: SupportsIndex, initial: SupportsIndex | None, ttl: TTL
) -> int | None:
    """Add `delta` to the key's counter; give its new value."""
    return await _count(cluster, key, _checked(delta, "delta"), initial, ttl)


async def decr(
    cluster: Cluster, key: Key, delta: SupportsIndex, initial: SupportsIndex | None, ttl: TTL
) -> int | None:
    """Subtract `delta` from the key's counter, which stops at 0; give its new value."""
    return await _count(cluster, key, -_checked(delta, "delta"), initial, ttl)


async def _count(
    cluster: Cluster, key: Key, delta: int, start: SupportsIndex | None, ttl: TTL
) -> int | None:
    name, member = cluster.route(key)
    initial = None if start is None else _checked(start, "initial")
    seconds = lifetime(ttl, cluster.default_ttl)
    deadline = cluster.deadline()
    for _ in range(COUNTER_TRIES):
        count: int | None = cluster.unwrap(
            await cluster.ask(member, Incr(name, delta), deadline), _FAILED
        )
        if count is _FAILED:
            return None
        if count is not None or initial is None:
            return count
        if seconds == 0:  # a counter made for no time at all is not made
            return initial
        payload = cluster.payloads.encode(name, initial)
        made = await cluster.ask(member, Set(name, payload, seconds, When.ABSENT), deadline)
        if cluster.unwrap(made, default=False):  # nobody else has made it meanwhile
            return initial
    return None


def _checked(number: SupportsIndex, name: str) -> int:
    count = whole(number)
    if count is None:
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if not 0 <= count <= COUNTER_MAX:
        raise ValueError(f"{name} must be from 0 to 2**63 - 1, not {count}")
    return count


async def _store_expired(cluster: Cluster, member: Member, name: bytes, when: When) -> bool:
    """Do what storing for no time at all comes to: the key is deleted, but never by an `add`."""
    if when is When.ABSENT:
        return cluster.unwrap(await cluster.ask(member, Get(name)), _FAILED) is None
    cluster.io.single_flight.forget(name)
    there = cluster.unwrap(await cluster.ask(member, Delete(name)), _FAILED)
    return there is not _FAILED and (when is When.ALWAYS or bool(there))


async def _drop_refused(
    cluster: Cluster, member: Member, name: bytes, reply: object, deadline: float
) -> None:
    """Delete what a refused overwrite left: memcached drops the old value, Redis keeps it."""
    if isinstance(reply, NodeRefusedError):
        await cluster.ask(member, Delete(name), deadline)
