"""Operations on whole nodes: ping, statistics and flush."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shardcache.core.commands import Command, FlushAll, Ping, ServerStats
from shardcache.core.pools import PoolUse
from shardcache.errors import DecodeError, NodeError, PartialFailureError, TopologyError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.routing import Key


class NodeStats(NamedTuple):
    """One node's figures: the server's own, or its error, and this client's counters.

    `circuit` is `closed`, or `open`, `probing` or `quarantine` while the node is ejected.
    """

    server: dict[str, str] | NodeError
    client: dict[str, int | float]
    circuit: str = "closed"


async def ping(cluster: Cluster) -> dict[str, float | NodeError]:
    """Return, by node name, the seconds that a ping took, or the node's error.

    Ejected nodes are asked as well, and restored when they answer. `lock` precedes the names of
    nodes that serve only locks.
    """
    known = cluster.all_members
    asks = [(member, Ping()) for member in known.values()]
    answers = await cluster.ask_members_timed(asks, ejected_too=True)
    return {
        name: reply if isinstance(reply, NodeError) else seconds
        for name, (reply, seconds) in zip(known, answers, strict=True)
    }


class Stats(dict[str, NodeStats]):
    """The figures of each node by its name.

    `protection` are the counters of all values that were recomputed through this client.
    """

    protection: dict[str, float]


class Counters(dict[str, dict[str, int | float]]):
    """A client's counters since it was created, by the node's name.

    `protection` are the counters of all values that were recomputed through this client, `circuits`
    has `closed`, `open`, `probing` or `quarantine` by the node's name, `pools` the connections that
    there are now; a node without connections, such as one in memory, has none. `moving` are the
    counters of a change of nodes in progress, and is empty without one. `shadow` has how many reads
    were compared with those of a `Shadow`, by outcome.
    """

    protection: dict[str, float]
    circuits: dict[str, str]
    pools: dict[str, PoolUse]
    moving: dict[str, float]
    shadow: dict[str, int]


def counters(cluster: Cluster, recomputes: Mapping[str, float]) -> Counters:
    """Return this client's counters by node name, without asking any node."""
    known = cluster.all_members
    counted = Counters((name, cluster.counters_of(member)) for name, member in known.items())
    counted.protection = dict(recomputes)
    counted.circuits = {name: member.health.circuit.value for name, member in known.items()}
    uses = {name: getattr(member.backend, "pool_use", None) for name, member in known.items()}
    counted.moving = {} if cluster.move is None else cluster.move.counters(cluster.io.now())
    counted.pools = {name: use for name, use in uses.items() if isinstance(use, PoolUse)}
    counted.shadow = {}
    return counted


async def stats(cluster: Cluster, recomputes: Mapping[str, float]) -> Stats:
    """Return, by node name, the server's own figures (or its error) and this client's counters."""
    known = cluster.all_members
    members = list(known.values())
    counted = counters(cluster, recomputes)
    replies = await _ask_each(cluster, members, ServerStats())
    every = Stats(
        (name, NodeStats(reply, counted[name], member.health.circuit.value))
        for (name, member), reply in zip(known.items(), replies, strict=True)
    )
    every.protection = counted.protection
    return every


async def flush_all(cluster: Cluster) -> bool:
    """Empty every node, spare ones and those of a change too; return whether all did."""
    members = cluster.value_members
    cluster.invalidated_all()
    replies = await _ask_each(cluster, list(members.values()), FlushAll())
    failed: dict[Key, NodeError | DecodeError] = {
        name: reply
        for name, reply in zip(members, replies, strict=True)
        if isinstance(reply, NodeError)
    }
    if failed and cluster.raises:
        flushed = [name for name in members if name not in failed]
        raise PartialFailureError(failed, total=len(members), succeeded=flushed)
    return not failed


async def flush_node(cluster: Cluster, name: str) -> bool:
    """Empty one node, spare ones and those of a change too; return whether it did.

    Raise `TopologyError` for an unknown name.
    """
    member = cluster.value_members.get(name)
    if member is None:
        known = ", ".join(cluster.value_members)
        raise TopologyError(f"no node {name!r} (known: {known})")
    cluster.invalidated_all()
    flushed: bool = cluster.unwrap(await cluster.ask_member(member, FlushAll()), default=False)
    return flushed


async def _ask_each(
    cluster: Cluster, members: list[Member], command: Command
) -> list[Any]:  # of its kind
    return await cluster.ask_members([(member, command) for member in members])
