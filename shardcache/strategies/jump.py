"""Jump consistent hashing (Lamping & Veach, 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from xxhash import xxh64_intdigest

from shardcache.core.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies.base import Placed, StrategyBase, rehashed

_MASK: Final = 2**64 - 1


class Jump(StrategyBase):
    """No table at all, for an ordered list of shards that grows and shrinks at its end only.

    The order of the nodes is their place; weights, and changes before the end, are refused. What is
    hashed, by XXH64, is the key with its namespace.
    """

    registered: ClassVar[str] = "jump"

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by the nodes' order; refuse weights."""
        if len({node.weight for node in nodes}) > 1:
            raise TopologyError("strategy 'jump' takes no weights; use rendezvous or maglev")
        count = len(nodes)
        digest = xxh64_intdigest

        def owner(key: bytes) -> Node:
            return nodes[bucket(digest(key), count)]

        def inputs() -> Iterable[bytes]:
            return (b"jump xxh64", *(node.name.encode() for node in nodes))

        return Placed(owner, rehashed(owner, nodes), inputs)

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Refuse a change that is not at the end of the list: it would move most keys."""
        for old, new in zip(before, after, strict=False):
            if old.name != new.name:
                raise TopologyError(
                    f"strategy 'jump' changes at the end of its list only: {old.name!r} would give"
                    f" way to {new.name!r}"
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
