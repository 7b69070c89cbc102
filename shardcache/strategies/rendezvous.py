"""Weighted rendezvous hashing over a fixed number of slots.

Thaler & Ravishankar 1998; weights as in Schindelhauer & Schomaker 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import ClassVar, Final

from xxhash import xxh3_64_intdigest

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import HashRanges
from shardcache.strategies.base import (
    BuiltPlacement,
    Owner,
    Owners,
    StrategyBase,
    Value,
    digest_parts,
)
from shardcache.strategies.slot_tables import Ranking, slot_table

SLOTS: Final = (65_536, 262_144)


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
        table = slot_table(Ranking.of(slots, ordered))
        places, owners = table.places, (None, *ordered)

        def fill(slot: int) -> Node:
            return ordered[table.fill(slot) - 1]

        def preference(key: bytes, count: int) -> Sequence[Node]:
            scores = table.scores(xxh3_64_intdigest(key) & (slots - 1))
            best = nlargest(count, range(len(ordered)), key=scores.__getitem__)
            return [ordered[index] for index in best]

        def inputs() -> Iterable[bytes]:
            return (b"rendezvous 1 xxh3_64", b"%d" % slots, *digest_parts(ordered))

        def node_of(slot: int) -> Node:
            return owners[places[slot]] or fill(slot)

        def hash_ranges() -> HashRanges:
            return HashRanges(f"xxh3_64 & {slots - 1}", range(1, slots + 1), node_of, len(ordered))

        owner, owners_of = _owner(places, owners, fill), _owners(places, owners, fill)
        return BuiltPlacement(owner, preference, inputs, hash_ranges, owners_of)


def _owners(
    places: Sequence[int], owners: Sequence[Node | None], fill: Callable[[int], Node]
) -> Owners:
    """Return the function from many keys to their nodes: what `_owner` returns, as one loop."""
    digest, mask = xxh3_64_intdigest, len(places) - 1

    def owners_of(keys: Sequence[bytes]) -> list[Node]:
        return [owners[places[slot := digest(key) & mask]] or fill(slot) for key in keys]

    return owners_of


def _owner(
    places: Sequence[int], owners: Sequence[Node | None], fill: Callable[[int], Node]
) -> Owner:
    """Return the function from a key to its node: `owners` begins with `None`, for a slot not used yet."""
    digest, mask = xxh3_64_intdigest, len(places) - 1

    def owner(key: bytes) -> Node:
        slot = digest(key) & mask
        return owners[places[slot]] or fill(slot)

    return owner
