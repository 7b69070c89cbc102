"""Weighted rendezvous hashing over a fixed number of slots.

Thaler & Ravishankar 1998; weights as in Schindelhauer & Schomaker 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from itertools import repeat
from math import log
from typing import ClassVar, Final, TypeAlias

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import HashRanges
from shardcache.strategies.base import BuiltPlacement, Owner, StrategyBase, Value, digest_parts

SLOTS: Final = (65_536, 262_144)

# The nodes' scores for a slot, in the order of the nodes; the first of the greatest wins.
Scores: TypeAlias = Callable[[int], Sequence[float]]


class Rendezvous(StrategyBase):
    """The default strategy: each key's slot belongs to the node with the greatest score.

    Placement depends only on the set of nodes and weights. Their order does not matter, any node may
    leave, and no key moves unnecessarily. The option `slots` is the number of slots; changing it
    moves keys. 262,144 slots keep more than about 100 nodes in better balance. The key is hashed
    with its namespace.
    """

    registered: ClassVar[str] = "rendezvous"
    choices: ClassVar[dict[str, Sequence[Value]]] = {"slots": SLOTS}

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys; a slot's owner is computed at its first use.

        The digest covers names, weights and slots, not the table. The table follows from them by the
        algorithm whose name and version begin the digest, and tests pin its content. Reading the
        table would take a hash for every slot and node.
        """
        ordered = sorted(nodes, key=lambda node: node.name)
        slots = int(self.options["slots"])
        scores_of = _scores(ordered)
        table: list[Node | None] = [None] * slots

        def fill(slot: int) -> Node:
            # Two threads may fill the same slot at once: both write the same node.
            scores = scores_of(slot)
            node = table[slot] = ordered[scores.index(max(scores))]
            return node

        def preference(key: bytes, count: int) -> Sequence[Node]:
            scores = scores_of(xxh3_64_intdigest(key) & (slots - 1))
            best = nlargest(count, range(len(ordered)), key=scores.__getitem__)
            return [ordered[index] for index in best]

        def inputs() -> Iterable[bytes]:
            return (b"rendezvous 1 xxh3_64", b"%d" % slots, *digest_parts(ordered))

        def node_of(slot: int) -> Node:
            return table[slot] or fill(slot)

        def hash_ranges() -> HashRanges:
            return HashRanges(f"xxh3_64 & {slots - 1}", range(1, slots + 1), node_of, len(ordered))

        return BuiltPlacement(_owner(table, fill), preference, inputs, hash_ranges)


def _owner(table: Sequence[Node | None], fill: Callable[[int], Node]) -> Owner:
    digest, mask = xxh3_64_intdigest, len(table) - 1

    def owner(key: bytes) -> Node:
        slot = digest(key) & mask
        return table[slot] or fill(slot)

    return owner


def _scores(nodes: Sequence[Node]) -> Scores:
    """Return the function from a slot to the nodes' scores.

    A score is -w / ln u, where u is the hash of slot and name as a fraction. If all weights are
    equal, the hash alone gives the same order without a logarithm.
    """
    seeds = [xxh3_64_digest(node.name.encode()) for node in nodes]
    weights = [node.weight for node in nodes]
    if len(set(weights)) == 1:
        return lambda slot: list(map(xxh3_64_intdigest, seeds, repeat(slot)))

    def scores(slot: int) -> Sequence[float]:
        hashes = map(xxh3_64_intdigest, seeds, repeat(slot))
        return [
            -weight / log(_fraction(each)) for weight, each in zip(weights, hashes, strict=True)
        ]

    return scores


def _fraction(value: int) -> float:
    # A float holds the upper 52 of 64 bits plus a half: exact, and neither 0 nor 1.
    return ((value >> 12) + 0.5) / 2**52
