"""The 16,384 slots of Redis Cluster, over nodes that do not form a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import ClassVar, Final

from shardcache.core.placement.hashing import crc16
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import HashRanges
from shardcache.strategies.base import (
    BuiltPlacement,
    StrategyBase,
    digest_parts,
    preference_by_rehashing,
)

SLOTS: Final = 16_384


class Crc16(StrategyBase):
    """Slots as in `CLUSTER KEYSLOT`, in even ranges over the nodes in their order.

    Hash tags are always honoured, as in Redis Cluster. A greater weight makes a longer range. Adding
    a node moves the borders of all ranges, so `rendezvous` moves fewer keys. The key is hashed with
    its namespace, because that is its name in Redis.
    """

    registered: ClassVar[str] = "crc16"
    always_tags: ClassVar[bool] = True

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys by slot."""
        ends = _ends(nodes)
        table = _table(nodes, ends)

        def owner(key: bytes) -> Node:
            return table[crc16(key) % SLOTS]

        def inputs() -> Iterable[bytes]:
            return (b"crc16", *digest_parts(nodes), *(b"%d" % end for end in ends))

        def hash_ranges() -> HashRanges:
            return HashRanges("crc16 % 16384", ends, nodes.__getitem__)

        return BuiltPlacement(owner, preference_by_rehashing(owner, nodes), inputs, hash_ranges)


def _ends(nodes: Sequence[Node]) -> list[int]:
    """Return where each node's range of slots ends."""
    total = sum(node.weight for node in nodes)
    inner = [round(SLOTS * reached / total) for reached in accumulate(n.weight for n in nodes)]
    return [*inner[:-1], SLOTS]


def _table(nodes: Sequence[Node], ends: Sequence[int]) -> list[Node]:
    return [
        node
        for node, start, end in zip(nodes, [0, *ends], ends, strict=False)
        for _ in range(end - start)
    ]
