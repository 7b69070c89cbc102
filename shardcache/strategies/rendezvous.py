"""Weighted rendezvous hashing, frozen into slots.

Thaler & Ravishankar 1998; weights as in Schindelhauer & Schomaker 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from itertools import repeat
from math import log
from typing import ClassVar, Final, TypeAlias

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from shardcache.core.nodes import Node
from shardcache.core.strategy import HashRanges
from shardcache.strategies.base import Owner, Placed, StrategyBase, Value, described

SLOTS: Final = (65_536, 262_144)

# The node's scores for a slot, in the order of the nodes; the greatest wins, of equals the first.
Scores: TypeAlias = Callable[[int], Sequence[float]]


class Rendezvous(StrategyBase):
    """The default: each key's slot belongs to the node of the greatest score.

    A pure function of the set of nodes and weights: order does not matter, any node may leave, and
    what moves is exactly what must. The slot count, the option `slots`, is part of where keys
    live; 262,144 slots keep more than about 100 nodes in better balance. What is hashed is the key
    with its namespace.
    """

    registered: ClassVar[str] = "rendezvous"
    choices: ClassVar[dict[str, Sequence[Value]]] = {"slots": SLOTS}

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key; a slot's owner is found at its first use, so this takes no time.

        The digest is of names, weights and slots, not of the table: the table is a function of
        these alone, by the construction whose name and version lead the digest, and the tests pin
        its content. Reading it would cost a hash for every slot and node.
        """
        ordered = sorted(nodes, key=lambda node: node.name)
        slots = int(self.options["slots"])
        scores = _scores(ordered)
        table: list[Node | None] = [None] * slots

        def fill(slot: int) -> Node:
            # Two threads may fill one slot at once: both write the same node.
            scored = scores(slot)
            node = table[slot] = ordered[scored.index(max(scored))]
            return node

        def preference(key: bytes, count: int) -> Sequence[Node]:
            scored = scores(xxh3_64_intdigest(key) & (slots - 1))
            best = nlargest(count, range(len(ordered)), key=scored.__getitem__)
            return [ordered[index] for index in best]

        def inputs() -> Iterable[bytes]:
            return (b"rendezvous 1 xxh3_64", b"%d" % slots, *described(ordered))

        def holder(slot: int) -> Node:
            return table[slot] or fill(slot)

        def hash_ranges() -> HashRanges:
            return HashRanges(f"xxh3_64 & {slots - 1}", range(1, slots + 1), holder, len(ordered))

        return Placed(_owner(table, fill), preference, inputs, hash_ranges)


def _owner(table: Sequence[Node | None], fill: Callable[[int], Node]) -> Owner:
    digest, mask = xxh3_64_intdigest, len(table) - 1

    def owner(key: bytes) -> Node:
        slot = digest(key) & mask
        return table[slot] or fill(slot)

    return owner


def _scores(nodes: Sequence[Node]) -> Scores:
    """Return the function from a slot to the nodes' scores.

    A score is -w / ln u, with u the hash of slot and name as a fraction. With equal weights the
    hash alone gives the same order without a logarithm.
    """
    seeds = [xxh3_64_digest(node.name.encode()) for node in nodes]
    weights = [node.weight for node in nodes]
    if len(set(weights)) == 1:
        return lambda slot: list(map(xxh3_64_intdigest, seeds, repeat(slot)))

    def scores(slot: int) -> Sequence[float]:
        hashes = map(xxh3_64_intdigest, seeds, repeat(slot))
        return [
            -weight / log(_fraction(hashed)) for weight, hashed in zip(weights, hashes, strict=True)
        ]

    return scores


def _fraction(hashed: int) -> float:
    # Of 64 bits a float holds the upper 52 and a half: exact, and neither 0 nor 1.
    return ((hashed >> 12) + 0.5) / 2**52
