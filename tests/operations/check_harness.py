"""A harness for the check of nodes."""

from __future__ import annotations

from typing import Any

import pytest

from operations.client_harness import ClientHarness
from operations.simulation import Process, SimulatedNode
from shardcache.core.commands import ServerStats
from shardcache.core.placement.nodes import Node
from shardcache.errors import CheckFailedError
from shardcache.operations.keys.checking import NodeCheck, check


class CheckHarness(ClientHarness):
    """Nodes to be checked."""

    def __init__(
        self, nodes: int = 1, *, memcached: bool = False, url: str = "", **options: Any
    ) -> None:
        super().__init__(kinds=[memcached] * nodes, **options)
        if url:
            self.member().node = Node(url, name="n0")

    def check(self) -> dict[str, NodeCheck]:
        """Check the nodes, and return what was found."""
        return self.run(check(self.cluster))

    def faults(self, name: str = "n0") -> tuple[str, ...]:
        """Check the nodes, and return what is wrong with one."""
        with pytest.raises(CheckFailedError) as raised:
            self.check()
        return raised.value.faults[name]

    def answer_stats(self, figures: Any) -> None:
        """Have the node say this of itself."""
        self.answer_to(ServerStats, figures)

    def add_lock_node(self) -> SimulatedNode:
        """Add a node that serves only locks, and return it."""
        node = SimulatedNode(self.world)
        self.cluster.locks = Process(self.world, [node]).cluster
        return node

    @property
    def kept(self) -> list[bytes]:
        """Return the keys that are left on the nodes."""
        return [key for node in self.nodes for key in node.store._entries]
