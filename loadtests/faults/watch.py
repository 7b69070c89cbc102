"""What a client tells of its nodes: when each failed first, was left out, and was asked again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from shardcache import Node, NodeEjected, NodeFailed, NodeRestored, Observer


class Change(NamedTuple):
    """What happened to the node at `node` of the client's nodes, at a monotonic moment."""

    at: float
    what: Literal["failed", "ejected", "restored"]
    node: int


class Watch(Observer):
    """Notes changes. Of the failures of a node, only the first since its last return."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._failing: set[str] = set()
        self._places: dict[str, int] = {}

    def place(self, nodes: Sequence[Node]) -> None:
        """Know nodes by their places from now on."""
        self._places = {node.name: place for place, node in enumerate(nodes)}

    def node_failed(self, event: NodeFailed) -> None:
        """Record a first failure."""
        if event.node.name not in self._failing:
            self._failing.add(event.node.name)
            self._note("failed", event.node)

    def node_ejected(self, event: NodeEjected) -> None:
        """Record that a node was ejected."""
        self._note("ejected", event.node)

    def node_restored(self, event: NodeRestored) -> None:
        """Record that a node was restored."""
        self._failing.discard(event.node.name)
        self._note("restored", event.node)

    def _note(self, what: Literal["failed", "ejected", "restored"], node: Node) -> None:
        self.changes.append(Change(time.monotonic(), what, self._places.get(node.name, -1)))
