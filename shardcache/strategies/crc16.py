"""The 16,384 slots of Redis Cluster, over nodes that are no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import ClassVar, Final

from shardcache.core.hashing import crc16, hash_tag
from shardcache.core.nodes import Node
from shardcache.strategies.base import Placed, StrategyBase, rehashed

SLOTS: Final = 16_384


class Crc16(StrategyBase):
    """Slots as `CLUSTER KEYSLOT` gives them, in even runs over the nodes in their order.

    Hash tags are always honoured, as in Redis Cluster. Weights make runs longer. Adding a node
    moves the borders of all runs: `rendezvous` moves less.
    """

    registered: ClassVar[str] = "crc16"

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by its slot."""
        table = _runs(nodes)

        def owner(key: bytes) -> Node:
            return table[slot_of(key)]

        def inputs() -> Iterable[bytes]:
            yield b"crc16"
            yield "\0".join(node.name for node in table).encode()

        # The salt goes in front of the tag, for what stands before a tag is not hashed.
        fallback = rehashed(lambda key: table[crc16(key) % SLOTS], nodes)
        return Placed(owner, lambda key, count: fallback(hash_tag(key), count), inputs)


def slot_of(key: bytes) -> int:
    """Give the slot, 0 to 16,383, of a key by its hash tag.

    >>> slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers")
    True
    """
    return crc16(hash_tag(key)) % SLOTS


def _runs(nodes: Sequence[Node]) -> list[Node]:
    total = sum(node.weight for node in nodes)
    ends = [round(SLOTS * reached / total) for reached in accumulate(node.weight for node in nodes)]
    starts = [0, *ends[:-1]]
    return [
        node
        for node, start, end in zip(nodes, starts, ends, strict=True)
        for _ in range(end - start)
    ]
