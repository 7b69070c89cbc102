"""Counters: whole numbers that the servers count."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Literal, NamedTuple, SupportsIndex, TypeAlias

from shardcache.core.commands import (
    COUNTER_MAX,
    COUNTER_MIN,
    CasKeep,
    Gets,
    Incr,
    IncrSigned,
    Reply,
    Set,
    When,
)
from shardcache.core.lifetimes import TTL, lifetime
from shardcache.core.numeric import whole
from shardcache.core.values.flags import is_decimal
from shardcache.errors import NodeRefusedError, NotACounterError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys.keeping import store_keeping

COUNTER_TRIES: Final = 3  # rounds of incr and add, for a counter that keeps vanishing in between
SIGNED_TRIES: Final = 100  # rounds of read and store, for a counter that others keep changing
FIRST_PAUSE: Final = (
    0.0005  # seconds, at most, after the first of them; twice as much after the next
)
LONGEST_PAUSE: Final = 0.02
_FAILED: Final[Any] = object()  # in place of a reply

Floor: TypeAlias = Literal[0] | None


class Count(NamedTuple):
    """What to count: a step, and the number, ttl and floor of a counter."""

    delta: int
    initial: int | None
    ttl: TTL
    floor: Floor


def incr(  # noqa: PLR0913, PLR0917 - the call of a client
    cluster: Cluster,
    key: Key,
    delta: SupportsIndex,
    initial: SupportsIndex | None,
    ttl: TTL,
    floor: Floor,
) -> Coroutine[Any, Any, int | None]:
    """Add `delta` to the key's counter; return its new value."""
    count = _count(_check(delta, "delta", 0), initial, ttl, floor)
    return _report(cluster, "incr", key, count)


def decr(  # noqa: PLR0913, PLR0917 - the call of a client
    cluster: Cluster,
    key: Key,
    delta: SupportsIndex,
    initial: SupportsIndex | None,
    ttl: TTL,
    floor: Floor,
) -> Coroutine[Any, Any, int | None]:
    """Subtract `delta` from the key's counter; return its new value."""
    count = _count(-_check(delta, "delta", 0), initial, ttl, floor)
    return _report(cluster, "decr", key, count)


def _count(delta: int, initial: SupportsIndex | None, ttl: TTL, floor: Floor) -> Count:
    if floor is not None and (isinstance(floor, bool) or floor != 0):
        raise ValueError(f"floor must be 0, or None for a counter without one, not {floor!r}")
    least = 0 if floor == 0 else COUNTER_MIN
    return Count(delta, None if initial is None else _check(initial, "initial", least), ttl, floor)


def _check(number: SupportsIndex, name: str, least: int) -> int:
    count = whole(number)
    if count is None:
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if not least <= count <= COUNTER_MAX:
        shown = "0" if least == 0 else "-2**63"
        raise ValueError(f"{name} must be from {shown} to 2**63 - 1, not {count}")
    return count


def _report(cluster: Cluster, name: str, key: Key, count: Count) -> Coroutine[Any, Any, int | None]:
    if cluster.observes_operations:
        return report(cluster, name, 1, lambda: _add(cluster, key, count))
    return _add(cluster, key, count)


async def _add(cluster: Cluster, key: Key, count: Count) -> int | None:
    name, member, _ = cluster.route(key)
    cluster.invalidated(name)
    initial = count.initial
    seconds = lifetime(count.ttl, cluster.default_ttl)
    deadline = cluster.deadline()
    add = _add_signed if count.floor is None else _add_unsigned
    for _ in range(COUNTER_TRIES):
        reply = await add(cluster, member, name, count.delta, deadline)
        counted: int | None = cluster.unwrap(reply, _FAILED)
        if counted is _FAILED:
            return None
        if counted is not None or initial is None:
            return counted
        if seconds == 0:  # with a ttl of 0 no counter is created
            return initial
        payload = cluster.payloads.encode(name, initial)
        added = await cluster.ask(member, Set(name, payload, seconds, When.ABSENT), deadline)
        if cluster.unwrap(added, default=False):  # else another client created it meanwhile
            return initial
    return None


async def _add_unsigned(
    cluster: Cluster, member: Member, name: bytes, delta: int, deadline: float
) -> Reply:
    return await cluster.ask(member, Incr(name, delta), deadline)


async def _add_signed(
    cluster: Cluster, member: Member, name: bytes, delta: int, deadline: float
) -> Reply:
    """Count below zero; where the server cannot, read the number and store the new one."""
    if IncrSigned in member.supports:
        return await cluster.ask(member, IncrSigned(name, delta), deadline)
    for attempt in range(SIGNED_TRIES):
        reply = await _try_signed(cluster, member, name, delta, deadline)
        if reply is not False:
            return reply
        # At random, so that a slow client has its turn among fast ones.
        pause = cluster.io.random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
        if cluster.io.now() + pause >= deadline:
            break
        await cluster.io.sleep(pause)
    error = NodeRefusedError("other clients kept changing the counter", member.node.name)
    cluster.record_error(member, error)
    return error


async def _try_signed(
    cluster: Cluster, member: Member, name: bytes, delta: int, deadline: float
) -> Reply:
    """Read the number and store the sum; return `False` if another client changed it meanwhile."""
    found: Any = await cluster.ask(member, Gets(name), deadline)
    if not isinstance(found, tuple):
        missing: Reply = found  # or its node failed
        return missing
    (flags, data), token = found
    digits = data.rstrip(b" ")  # memcached pads a counter that lost a digit
    old = int(digits) if is_decimal(digits) else COUNTER_MAX + 1
    new = old + delta
    if not (COUNTER_MIN <= old <= COUNTER_MAX and COUNTER_MIN <= new <= COUNTER_MAX):
        return NotACounterError(
            "the value is not a whole number from -2**63 to 2**63 - 1, or would leave that range",
            member.node.name,
        )
    if old >= 0 <= delta:  # every server counts up from zero by itself
        reply = await cluster.ask(member, Incr(name, delta), deadline)
        return False if isinstance(reply, NotACounterError) else reply
    command = CasKeep(name, (flags, b"%d" % new), token)
    reply = await store_keeping(cluster, member, command, deadline)
    return new if reply is True else reply
