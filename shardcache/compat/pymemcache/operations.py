"""Operations that pymemcache has and `Client` has not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Coroutine, Iterable
from enum import Enum
from typing import Any, Final

from shardcache.compat.pymemcache.values import Item
from shardcache.core.commands import Gets
from shardcache.core.keys import check_keys
from shardcache.core.lifetimes import KEEP
from shardcache.errors import NodeError, NodeRefusedError, PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import token_for_caller
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.observing import report
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys import single
from shardcache.operations.keys.many import Failed

EXTEND_TRIES: Final = 10  # rounds of read and store, for a value that other writers keep changing
_MISSING: Final[Any] = object()  # in place of a value


class Side(Enum):
    """The end of a value to which data is added."""

    BEFORE = "prepend"
    AFTER = "append"


async def extend(cluster: Cluster, key: Key, item: Item, side: Side) -> bool:
    """Add data at one side of a stored value, which keeps its expiry and flags.

    It is done on the key's own node or not at all, as every `cas`. Return whether there was a value. Raise `NodeRefusedError` if other writers keep changing it.
    """
    name, member, _ = cluster.home(key)
    _, added = cluster.payloads.encode(name, item)
    for _ in range(EXTEND_TRIES):
        found: Any = cluster.unwrap(await cluster.ask(member, Gets(name)), None)
        if found is None:
            return False
        (flags, data), token = found
        whole = added + data if side is Side.BEFORE else data + added
        stored = await single.cas(cluster, key, (flags, whole), token, KEEP)
        if stored is not False:  # else another write came in between
            return stored is True
    raise NodeRefusedError(f"{side.value}: other writers keep changing the value", member.node.name)


def gets_many(
    cluster: Cluster, keys: Iterable[Key]
) -> Coroutine[Any, Any, dict[Key, tuple[Any, Any]]]:
    """Return the values found with their tokens for `cas`, under the caller's own keys."""
    check_keys("gets_many", keys)
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
                found[key] = value, token_for_caller(member, token)
            if not waiting[member]:
                del waiting[member]
    if failed and cluster.raises:
        raise PartialFailureError(failed, total=total, nodes=nodes, found=found)
    return found
