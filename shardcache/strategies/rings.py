"""A ring of points: a key belongs to the first point at or after its hash."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain

from shardcache.core.hashing import KeyHash
from shardcache.core.nodes import Node
from shardcache.core.strategy import HashRanges
from shardcache.strategies.base import Placed
from shardcache.strategies.keyhashes import space_of


def ring(
    nodes: Sequence[Node], points: Sequence[Sequence[int]], key_hash: KeyHash, name: str
) -> Placed:
    """Return the placement of `nodes`, each with its points; past the last comes the first again.

    Of two points in one place, the node that comes first in `nodes` has it. `name` says which
    ring this is, for the digest.
    """
    places, holders = _sorted(nodes, points)
    find = bisect_left

    def owner(key: bytes) -> Node:
        return holders[find(places, key_hash(key))]

    def preference(key: bytes, count: int) -> Sequence[Node]:
        wanted = min(count, len(nodes))
        start = find(places, key_hash(key))
        found: dict[Node, None] = {}
        around = map(holders.__getitem__, chain(range(start, len(places)), range(start)))
        # Rounding can leave a very light node without a point: such come last.
        for node in chain(around, nodes):
            if len(found) >= wanted:
                break
            found[node] = None
        return list(found)

    def inputs() -> Iterable[bytes]:
        names = "\0".join(node.name for node in holders)
        return (name.encode(), struct.pack(f"<{len(places)}I", *places), names.encode())

    def hash_ranges() -> HashRanges:
        size = space_of(key_hash)
        ends = [min(place + 1, size) for place in places]
        return HashRanges(f"{key_hash.__name__} on a ring", [*ends, size], holders.__getitem__)

    return Placed(owner, preference, inputs, hash_ranges)


def _sorted(
    nodes: Sequence[Node], points: Sequence[Sequence[int]]
) -> tuple[Sequence[int], Sequence[Node]]:
    """Return the places in order, and their nodes with that of the first place once more at the end.

    As keys of a mapping, backwards, the first node's claim to a place is written last. Floats,
    which hold 32 bits exactly, sort twice as fast as integers of that size.
    """
    places = [place for of_node in points for place in of_node]
    claims = [node for node, of_node in zip(nodes, points, strict=True) for _ in of_node]
    holder_of = dict(zip(reversed(places), reversed(claims), strict=True))
    ordered = sorted(holder_of, key=float)
    return ordered, [*map(holder_of.__getitem__, ordered), holder_of[ordered[0]]]
