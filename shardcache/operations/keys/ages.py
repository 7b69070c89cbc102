"""How long a key lives, and whether it exists, without reading its value."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from shardcache.core.commands import Get, GetAged, Payload, Peek
from shardcache.core.values.flags import is_mark
from shardcache.errors import DecodeError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Key

_MISSING: Final[Any] = object()  # in place of a value


def ttl(cluster: Cluster, key: Key) -> Coroutine[Any, Any, float | None]:
    """Return the seconds that the key has left, infinite without an expiry; `None` if it is missing."""
    if cluster.observes_operations:
        return report(cluster, "ttl", 1, lambda: _ttl(cluster, key), lambda left: left is not None)
    return _ttl(cluster, key)


async def _ttl(cluster: Cluster, key: Key) -> float | None:
    name, member, _ = cluster.route(key)
    signs = cluster.payloads.signs  # then only the bytes tell whether a value is valid
    command = GetAged(name) if signs else Peek(name)
    found = cluster.unwrap(await cluster.ask(member, command), None)
    payload, left = found or (None, None)
    decode = None if signs else _refuse_mark
    value = cluster.value(member, name, payload, _MISSING, decode)
    return None if value is _MISSING else left


def exists(cluster: Cluster, key: Key) -> Coroutine[Any, Any, bool]:
    """Return whether a `get` would find the key."""
    if cluster.observes_operations:
        return report(cluster, "exists", 1, lambda: _exists(cluster, key), int)
    return _exists(cluster, key)


async def _exists(cluster: Cluster, key: Key) -> bool:
    name, member, _ = cluster.route(key)
    if Peek in member.supports:
        return await _ttl(cluster, key) is not None
    payload = cluster.unwrap(await cluster.ask(member, Get(name)), None)
    return cluster.value(member, name, payload, _MISSING) is not _MISSING


def _refuse_mark(_: bytes, payload: Payload) -> None:
    """Decode nothing, as the bytes were not read; raise `DecodeError` for a mark."""
    if is_mark(payload):
        raise DecodeError("a mark, not a value")
