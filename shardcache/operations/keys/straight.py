"""The straight way of the usual call: one key, and a node that answers.

No port stands between the call and the backend, and a blocking call has no coroutine: that halves
what a `get` adds to the time of the socket. Observers of calls are notified here as well.
`Cluster.straight` tells whether a client's calls may come here. A call that meets an error or an
ejected node goes on by the general way, from the step that it has reached: `single` and `counters`
have every rule, and `tests/clients/test_straight.py` compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from shardcache.core.commands import (
    COUNTER_MAX,
    Command,
    Delete,
    Get,
    Incr,
    Reply,
    Set,
    When,
    make_get,
)
from shardcache.core.lifetimes import DEFAULT, TTL, lifetime
from shardcache.errors import NodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys import single
from shardcache.operations.port import run

# Values and defaults are the caller's own objects, hence `Any`.


def get(cluster: Cluster, key: Key, default: Any) -> Any:
    """Return the key's value, or `default`."""
    name, member, _ = cluster.route(key)
    if member.get_straight is None or member.health.ejected:
        return run(lambda: single.get(cluster, key, default))
    reply = read(cluster, member, name, member.get_straight)
    if isinstance(reply, NodeError):
        reply = cluster.unwrap(reply, None)
    return cluster.value(member, name, reply, default)


# It returns a payload, `None` or an error, hence `Any`.
def read(cluster: Cluster, member: Member, name: bytes, get_straight: Callable[..., Reply]) -> Any:
    """Send a `Get` to a node that is not ejected; return what `Cluster.ask` returns."""
    now, timeout = cluster.io.now, cluster.timeout
    began = now()
    reply: Reply
    try:
        reply = get_straight(name, began, timeout)
    except NodeError as error:
        reply = error
    seconds = now() - began
    if member.health.watched or isinstance(reply, NodeError):
        until = began + timeout
        return run(lambda: cluster.conclude(member, Get(name), began, seconds, until, reply))
    if cluster.observed:
        cluster.record(member, Get(name), began, seconds, began + timeout, reply)
    else:
        member.answered += 1
        member.seconds += seconds
    return reply


async def get_async(cluster: Cluster, key: Key, default: Any) -> Any:
    """Return what `get` returns, over a port whose backends return futures."""
    name, member, _ = cluster.route(key)
    health = member.health
    if health.ejected:
        return await single.get(cluster, key, default)
    now, timeout = cluster.io.now, cluster.timeout
    command = make_get((name,))
    began = now()
    reply: Any  # as above
    try:
        reply = await member.backend.execute(command, began + timeout)
    except NodeError as error:
        reply = error
    seconds = now() - began
    if health.watched or isinstance(reply, NodeError):
        until = began + timeout
        reply = await cluster.conclude(member, command, began, seconds, until, reply)
        reply = cluster.unwrap(reply, None)
    elif cluster.observed:
        cluster.record(member, command, began, seconds, began + timeout, reply)
    else:
        member.answered += 1
        member.seconds += seconds
        # Bytes are their own value, as in `get_many`; that spares two calls.
        if type(reply) is tuple and reply[1] and reply[0] in cluster.payloads.bytes_flags:
            member.hits += 1
            return reply[1]
    return cluster.value(member, name, reply, default)


def store(cluster: Cluster, key: Key, value: Any, ttl: TTL) -> bool:
    """Store the key; return whether it was stored."""
    name, member, _ = cluster.route(key)
    seconds = lifetime(ttl, cluster.default_ttl)
    if seconds == 0:
        return run(lambda: single.store(cluster, key, value, ttl, When.ALWAYS))
    payload = cluster.payloads.encode(name, value, seconds)
    cluster.invalidated(name)
    began = cluster.io.now()
    reply = _ask(cluster, member, Set(name, payload, seconds), began)
    if reply is True:
        return True
    until = began + cluster.timeout
    return run(lambda: single.end_store(cluster, member, name, reply, until))


def delete(cluster: Cluster, key: Key) -> bool:
    """Remove the key; return whether it was there."""
    name, member, _ = cluster.route(key)
    cluster.invalidated(name)
    reply = _ask(cluster, member, Delete(name), cluster.io.now())
    return reply is True or bool(cluster.unwrap(reply, default=False))


def counts(delta: object, initial: object, ttl: TTL, floor: object) -> TypeGuard[int]:
    """Return whether an `incr` is of the usual kind: a step up of a counter that is there."""
    usual = initial is None and ttl is DEFAULT and type(floor) is int and floor == 0
    return usual and type(delta) is int and 0 <= delta <= COUNTER_MAX


def incr(cluster: Cluster, key: Key, delta: int) -> int | None:
    """Add `delta` to the key's counter; return its new value, or `None` if there is none."""
    name, member, _ = cluster.route(key)
    cluster.invalidated(name)
    reply = _ask(cluster, member, Incr(name, delta), cluster.io.now())
    number: int | None = reply if type(reply) is int else cluster.unwrap(reply, None)
    return number


def _ask(cluster: Cluster, member: Member, command: Command, began: float) -> Reply:
    """Send a command to a key's node; return what `Cluster.ask` returns."""
    reply: Reply
    health, until = member.health, began + cluster.timeout
    if health.ejected:
        return run(lambda: cluster.ask(member, command, until))
    try:
        reply = member.backend.execute(command, until)
    except NodeError as error:
        reply = error
    seconds = cluster.io.now() - began
    if health.watched or isinstance(reply, NodeError):
        return run(lambda: cluster.conclude(member, command, began, seconds, until, reply))
    if cluster.observed:
        cluster.record(member, command, began, seconds, until, reply)
    else:
        member.answered += 1
        member.seconds += seconds
    return reply
