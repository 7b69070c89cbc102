"""Harnesses for clients with a failover: plain calls, and one cached value."""

from __future__ import annotations

from typing import Any

from operations.cached_harness import RecomputeHarness
from operations.client_harness import ClientHarness
from operations.simulation import Process, SimulatedNode
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.topology import Topology
from shardcache.core.reserved_keys import DETOURED, own_key
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.failover import Failover
from shardcache.operations.cluster.members import Member
from shardcache.strategies.rendezvous import Rendezvous

CAP = 60.0


def turn_on(cluster: Cluster, spares: list[SimulatedNode] | None = None) -> None:
    """Give a client a failover: to the next nodes, or to spare ones."""
    if spares is None:
        cluster.use_failover(Failover(cluster.topology, cluster.members, CAP))
        return
    nodes = [Node("memory://x", name=f"s{place}") for place in range(len(spares))]
    members = {node.name: Member(node, spare) for node, spare in zip(nodes, spares, strict=True)}
    for member in members.values():
        cluster.ejector.add(member, member.node.name)
    cluster.use_failover(Failover(Topology(nodes, Rendezvous()), members, CAP, spare=True))


class FailoverHarness(ClientHarness):
    """One client whose ejected nodes have stand-ins: the next nodes, or `spares` spare ones."""

    def __init__(self, nodes: int = 3, *, spares: int = 0, **options: Any) -> None:
        self.spare_count = spares
        super().__init__(nodes, **options)

    def make_process(self, skew: float) -> Process:
        """Return a process whose client has a failover."""
        process = super().make_process(skew)
        self.spares = [SimulatedNode(self.world) for _ in range(self.spare_count)]
        turn_on(process.cluster, self.spares or None)
        return process

    def detoured(self, node: SimulatedNode, key: str) -> Any:
        """Return what a node keeps of a key that is not its own, with its expiry; `None` for nothing."""
        name = self.cluster.keys.canonical(key.encode())
        return node.held(own_key(DETOURED, name))

    def keys_of(self, node: int, count: int = 2) -> list[str]:
        """Return some keys of one node, whatever its health."""
        owned = (key for key in map("k{}".format, range(1000)) if self.order(key)[0] == node)
        return [next(owned) for _ in range(count)]

    def order(self, key: str) -> list[int]:
        """Return the nodes by their places, in a key's order of preference."""
        hashed = self.cluster.hashed(key)
        topology = self.cluster.topology
        return [int(node.name[1:]) for node in topology.preference(hashed, len(self.nodes))]


class CachedFailoverHarness(RecomputeHarness):
    """Processes that cache one value over nodes with stand-ins."""

    def make_process(self, skew: float) -> Process:
        """Return a process whose client has a failover."""
        process = super().make_process(skew)
        turn_on(process.cluster)
        return process

    @property
    def home(self) -> int:
        """Return the place of the value's own node."""
        _, member, _ = self.cluster.home(self.KEY)
        return int(member.node.name[1:])

    def kill_home(self) -> None:
        """Kill the value's own node, and have every process eject it."""
        for process in range(len(self.processes)):
            self.kill(self.home, process=process)
