"""Weighted rendezvous hashing, frozen into slots (Thaler & Ravishankar 1998; weights as in
Schindelhauer & Schomaker 2005)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from shardcache.core.nodes import Node
from shardcache.strategies.base import Owner, Placed, StrategyBase, described, read_choice

SLOTS: Final = (65_536, 262_144)


class Rendezvous(StrategyBase):
    """The default: each key's slot belongs to the node of the greatest score.

    A pure function of the set of nodes and weights: order does not matter, any node may leave, and
    what moves is exactly what must. The slot count is part of where keys live; 262,144 slots keep
    more than about 100 nodes in balance.
    """

    registered: ClassVar[str] = "rendezvous"

    def __init__(self, *, slots: str | int = SLOTS[0], **options: Any) -> None:  # see StrategyBase
        super().__init__(**options)
        self.slots: int = read_choice(self.registered, "slots", slots, SLOTS)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Give the names of the options."""
        return (*super().options(), "slots")

    def chosen(self) -> dict[str, object]:
        """Give the options that differ from their defaults."""
        return super().chosen() | ({} if self.slots == SLOTS[0] else {"slots": self.slots})

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key; a slot's owner is found at its first use, so this takes no time."""
        ordered = sorted(nodes, key=lambda node: node.name)
        rank = _ranking(ordered)
        mask = self.slots - 1

        def preference(key: bytes, count: int) -> Sequence[Node]:
            slot = xxh3_64_intdigest(key) & mask
            return sorted(ordered, key=lambda node: rank(slot, node), reverse=True)[:count]

        return Placed(
            owner=_owner(ordered, rank, self.slots),
            preference=preference,
            # The table is a pure function of these, by the construction whose name leads them.
            inputs=lambda: (b"xxh3 rendezvous 1", b"%d" % self.slots, *described(ordered)),
        )


Rank = Callable[[int, Node], tuple[float, int]]


def _ranking(nodes: Sequence[Node]) -> Rank:
    """Give the function that ranks a node for a slot: the weighted score, then the bare hash.

    With equal weights the hash alone decides, which is the same order without a logarithm.
    """
    seeds = {node.name: xxh3_64_digest(node.name.encode()) for node in nodes}
    if len({node.weight for node in nodes}) == 1:
        return lambda slot, node: (0.0, xxh3_64_intdigest(seeds[node.name], slot))

    def rank(slot: int, node: Node) -> tuple[float, int]:
        mixed = xxh3_64_intdigest(seeds[node.name], slot)
        return -node.weight / math.log((mixed + 0.5) / 2**64), mixed

    return rank


def _owner(nodes: Sequence[Node], rank: Rank, slots: int) -> Owner:
    table: list[Node | None] = [None] * slots
    mask = slots - 1
    digest = xxh3_64_intdigest

    def fill(slot: int) -> Node:
        # Two threads may fill one slot at once: both write the same node.
        node = max(nodes, key=lambda node: rank(slot, node))
        table[slot] = node
        return node

    def owner(key: bytes) -> Node:
        slot = digest(key) & mask
        return table[slot] or fill(slot)

    return owner
