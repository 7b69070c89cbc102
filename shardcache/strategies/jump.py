"""Jump consistent hashing (Lamping & Veach, 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from xxhash import xxh64_intdigest

from shardcache.core.placement.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies.base import BuiltPlacement, StrategyBase, preference_by_rehashing

_MASK: Final = 2**64 - 1


class Jump(StrategyBase):
    """Jump hashing, for an ordered list of shards that grows and shrinks only at its end.

    It needs no table. A node's position in the list decides its keys. Weights, and changes that are
    not at the end, are refused. The key is hashed with its namespace, by XXH64.
    """

    registered: ClassVar[str] = "jump"

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys by the nodes' order; refuse weights."""
        if len({node.weight for node in nodes}) > 1:
            raise TopologyError("strategy 'jump' takes no weights; use rendezvous or maglev")
        count = len(nodes)
        digest = xxh64_intdigest

        def owner(key: bytes) -> Node:
            return nodes[bucket(digest(key), count)]

        def inputs() -> Iterable[bytes]:
            return (b"jump xxh64", *(node.name.encode() for node in nodes))

        return BuiltPlacement(owner, preference_by_rehashing(owner, nodes), inputs)

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Raise `TopologyError` for a change before the end of the list: most keys would move."""
        for old, new in zip(before, after, strict=False):
            if old.name != new.name:
                raise TopologyError(
                    "strategy 'jump' allows changes only at the end of its list:"
                    f" {old.name!r} would be replaced by {new.name!r}"
                )


def bucket(key: int, count: int) -> int:
    """Return the bucket, from 0 to `count` - 1, of a 64-bit key.

    >>> bucket(256, 1024)
    520
    """
    chosen, jump = -1, 0
    while jump < count:
        chosen = jump
        key = (key * 2862933555777941757 + 1) & _MASK
        jump = int((chosen + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return chosen
