"""Which nodes there are, and which of them holds a key: one immutable value."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from shardcache.core.placement.movement import Movement
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Placement, Strategy
from shardcache.errors import TopologyError


class Topology:
    """A set of nodes, a strategy, and the placement of all keys on them. It never changes.

    The strategy builds the placement, unless the source of the nodes brings one, such as a
    cluster that decides by itself which node holds which slot. The strategy then only names how keys
    are hashed. `owner` is the hot function from a key's hashed bytes to the node that holds the key,
    and `owners` that from many keys to theirs.
    """

    __slots__ = ("__dict__", "_own_placement", "nodes", "owner", "owners", "placement", "strategy")

    def __init__(
        self, nodes: Iterable[Node], strategy: Strategy, placement: Placement | None = None
    ) -> None:
        self.nodes: tuple[Node, ...] = check_nodes(nodes)
        self.strategy = strategy
        self._own_placement = placement
        self.placement: Placement = strategy.build(self.nodes) if placement is None else placement
        self.owner: Callable[[bytes], Node] = self.placement.owner
        owners = getattr(self.placement, "owners", None)  # which a plugin's may lack
        self.owners: Callable[[Sequence[bytes]], Iterable[Node]] = owners or partial(
            map, self.owner
        )

    def preference(self, key: bytes, count: int) -> Sequence[Node]:
        """Return up to `count` distinct nodes for `key` in order, starting with its owner."""
        return self.placement.preference(key, count)

    @cached_property
    def fingerprint(self) -> str:
        """Return 32 hex digits that two clients share only if they place every key equally.

        It is a digest of the strategy's name and options and of the placement. It is computed at
        first use, because that reads the whole table.
        """
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.strategy.name.encode(), self.placement.digest):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    def node(self, name: str) -> Node:
        """Return the node called `name`; raise `TopologyError` listing the known names."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise TopologyError(f"no node {name!r} (known: {', '.join(map(str, self.nodes))})")

    def adding(self, node: Node) -> Topology:
        """Return the topology with `node` added at the end of the list."""
        return self.replaced((*self.nodes, node))

    def removing(self, name: str) -> Topology:
        """Return the topology without the node called `name`."""
        leaving = self.node(name)
        return self.replaced(node for node in self.nodes if node is not leaving)

    def replaced(self, nodes: Iterable[Node], placement: Placement | None = None) -> Topology:
        """Return the topology of `nodes` under the same strategy, or with their own `placement`.

        Raise `TopologyError` if the strategy builds the placement, and cannot follow the change.
        """
        listed = check_nodes(nodes)
        if placement is None:
            self.strategy.check_change(self.nodes, listed)
        return Topology(listed, self.strategy, placement)

    def __reduce__(
        self,
    ) -> tuple[type[Topology], tuple[tuple[Node, ...], Strategy, Placement | None]]:
        """Pickle nodes and strategy, because the functions of a built placement cannot be pickled."""
        return Topology, (self.nodes, self.strategy, self._own_placement)

    def __repr__(self) -> str:
        return f"<Topology [{len(self.nodes)} nodes] {self.strategy.name}>"


def check_nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return `nodes` as a tuple; raise `TopologyError` if it is empty or two share a name."""
    checked = tuple(nodes)
    if not checked:
        raise TopologyError("a topology needs at least one node")
    repeated = [name for name, count in Counter(node.name for node in checked).items() if count > 1]
    if repeated:
        raise TopologyError(f"two nodes are called {', '.join(map(repr, repeated))}")
    return checked


@dataclass(frozen=True)
class TopologyChange:
    """The effect of a change of nodes: nodes added, nodes removed, share of keys moved."""

    before: Topology
    after: Topology

    @property
    def added(self) -> tuple[Node, ...]:
        """Return the nodes whose names are new."""
        return _only_in(self.after, self.before)

    @property
    def removed(self) -> tuple[Node, ...]:
        """Return the nodes whose names are gone."""
        return _only_in(self.before, self.after)

    @cached_property
    def movement(self) -> Movement:
        """Return which keys move, and the balance before and after, as exactly as possible.

        It is computed at first use, which takes up to about a second: do not use it on an event loop.
        """
        return Movement.between(self.before.placement, self.after.placement)

    @cached_property
    def moved(self) -> float:
        """Return an estimate of the share of the key space, 0 to 1, that changed its node.

        It is computed at first use, within milliseconds, with a standard error of at most one
        percentage point; `movement.moved` is the exact share.
        """
        return Movement.estimate(self.before.placement, self.after.placement).moved

    # Neither looks up where a key lives, so that logging a change takes no time.
    def __str__(self) -> str:
        signs = [f"+{node}" for node in self.added] + [f"-{node}" for node in self.removed]
        return " ".join(signs) or "same nodes"

    def __repr__(self) -> str:
        return f"<TopologyChange {self}>"


def _only_in(topology: Topology, other: Topology) -> tuple[Node, ...]:
    names = {node.name for node in other.nodes}
    return tuple(node for node in topology.nodes if node.name not in names)
