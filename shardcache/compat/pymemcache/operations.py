"""Operations that pymemcache has and `Client` has not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from shardcache.core.commands import Gets
from shardcache.errors import NodeError, PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys.many import Failed

_MISSING: Final[Any] = object()  # in place of a value


def gets_many(
    cluster: Cluster, keys: Iterable[Key]
) -> Coroutine[Any, Any, dict[Key, tuple[Any, Any]]]:
    """Return the values found with their tokens for `cas`, under the caller's own keys."""
    if cluster.observes_operations:
        asked = list(keys)
        return report(cluster, "gets_many", len(asked), lambda: _gets_many(cluster, asked), len)
    return _gets_many(cluster, keys)


async def _gets_many(cluster: Cluster, keys: Iterable[Key]) -> dict[Key, tuple[Any, Any]]:
    """Ask for tokens in rounds: no command reads many of them, so each round is one key of each node."""
    waiting: dict[Member, list[tuple[Key, bytes]]] = defaultdict(list)
    route = cluster.route
    for key in keys:
        name, member, _ = route(key)
        waiting[member].append((key, name))
    total, nodes = sum(map(len, waiting.values())), len(waiting)
    found: dict[Key, tuple[Any, Any]] = {}
    failed: Failed = {}
    while waiting:
        asked = [(member, *left.pop()) for member, left in waiting.items()]
        replies: list[Any] = await cluster.ask_many(
            [(member, Gets(name)) for member, _, name in asked]
        )
        for (member, key, name), reply in zip(asked, replies, strict=True):
            if isinstance(reply, NodeError):
                unasked = [other for other, _ in waiting.pop(member)]
                failed |= dict.fromkeys([key, *unasked], reply)
                continue
            payload, token = reply or (None, None)
            value = cluster.value(member, name, payload, _MISSING)
            if value is not _MISSING:
                found[key] = value, token
            if not waiting[member]:
                del waiting[member]
    if failed and cluster.raises:
        raise PartialFailureError(failed, total=total, nodes=nodes, found=found)
    return found
