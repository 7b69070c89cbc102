"""A ring of points: a key belongs to the first point at or after its hash."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from shardcache.core.hashing import KeyHash
from shardcache.core.nodes import Node
from shardcache.strategies.base import Placed

Point = tuple[int, int]  # place on the ring, index of the node: of equal places the lower wins


def ring(points: Iterable[Point], nodes: Sequence[Node], key_hash: KeyHash) -> Placed:
    """Give the placement of `nodes` by their points; past the last point comes the first again."""
    ordered = sorted(points)
    places = [place for place, _ in ordered]
    holders = [nodes[index] for _, index in ordered]
    holders.append(holders[0])

    def owner(key: bytes) -> Node:
        return holders[bisect_left(places, key_hash(key))]

    def preference(key: bytes, count: int) -> Sequence[Node]:
        start = bisect_left(places, key_hash(key))
        wanted = min(count, len(nodes))
        found: dict[Node, None] = {}
        for step in range(len(places)):
            if len(found) == wanted:
                break
            found.setdefault(holders[(start + step) % len(places)])
        return list(found)

    def inputs() -> Iterable[bytes]:
        for place, holder in zip(places, holders, strict=False):
            yield b"%d %s" % (place, holder.name.encode())

    return Placed(owner, preference, inputs)
