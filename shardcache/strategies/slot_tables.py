"""Tables of the owners of slots: computed as slots are used, shared by placements of equal nodes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from itertools import repeat
from math import log
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from shardcache.core.placement.nodes import Node

# A hash as 8 bytes, big-endian, or a number: those of one table are all of one kind.
Scores: TypeAlias = Sequence[bytes] | Sequence[float]

_BYTE: Final = 256  # a bytearray is read faster than an array, and is half as large
_TWO_BYTES: Final = 65_536
_MANY: Final = 32  # nodes: with fewer, all scores are computed faster than a few are picked


class Ranking(NamedTuple):
    """What decides the owner of each of `slots` slots: names in order, and weights unless all are equal."""

    slots: int
    names: tuple[str, ...]
    weights: tuple[float, ...] | None

    @classmethod
    def of(cls, slots: int, ordered: Iterable[Node]) -> Ranking:
        """Return the ranking of nodes that are in the order of their names."""
        names, weights = zip(*((node.name, node.weight) for node in ordered), strict=True)
        return cls(slots, names, weights if len(set(weights)) > 1 else None)

    def nodes(self) -> Iterator[tuple[str, float]]:
        """Yield each node as its name and weight: what its scores follow from."""
        return zip(self.names, self.weights or repeat(1), strict=False)


class SlotTable:
    """The owner of each slot, as its place in the order of the nodes from 1; 0 before its first use.

    The owner has the greatest score, the first of several. A new table starts from the one that it
    replaces, if there is one: where the owner of a slot has stayed, only the added nodes can have a
    greater score. So a change of nodes costs a few hashes for each slot instead of one for each node.
    """

    __slots__ = ("__weakref__", "_added", "_kept", "_old_places", "_seeds", "places", "ranking")

    def __init__(self, ranking: Ranking, old: SlotTable | None) -> None:
        self.ranking = ranking
        self.places = _zeros(ranking.slots, len(ranking.names) + 1)
        self._seeds = [xxh3_64_digest(name.encode()) for name in ranking.names]
        # The old table, the place of each of its nodes in this one, 0 if it left, and the nodes that came.
        self._old_places = None if old is None else old.places
        place_of = {node: place for place, node in enumerate(ranking.nodes(), 1)}
        old_nodes = () if old is None else old.ranking.nodes()
        self._kept = [0, *(place_of.pop(node, 0) for node in old_nodes)]
        self._added = list(place_of.values())

    def fill(self, slot: int) -> int:
        """Compute the place of a slot's owner; two threads that do so at once write the same number."""
        kept = 0 if self._old_places is None else self._kept[self._old_places[slot]]
        if kept:
            rivals = sorted((kept, *self._added))
            scores = self._scores_of(slot, rivals)
            place = rivals[scores.index(max(scores))]
        else:
            scores = _scores(slot, self._seeds, self.ranking.weights)
            place = scores.index(max(scores)) + 1
        self.places[slot] = place
        return place

    def scores(self, slot: int) -> Scores:
        """Return the scores of all nodes for a slot, in the order of the nodes."""
        return _scores(slot, self._seeds, self.ranking.weights)

    def _scores_of(self, slot: int, places: Sequence[int]) -> Scores:
        """Return the scores of the nodes in `places` only."""
        weights = self.ranking.weights
        return _scores(
            slot,
            [self._seeds[place - 1] for place in places],
            None if weights is None else [weights[place - 1] for place in places],
        )


# Of the placements that exist. Nothing here locks: threads that miss at the same time build a table
# each, with the same content.
_tables: Final[WeakValueDictionary[Ranking, SlotTable]] = WeakValueDictionary()


def slot_table(ranking: Ranking) -> SlotTable:
    """Return the table that all placements of a ranking share."""
    table = _tables.get(ranking)
    if table is None:
        table = _tables.setdefault(ranking, SlotTable(ranking, _most_alike(ranking)))
    return table


def _most_alike(ranking: Ranking) -> SlotTable | None:
    """Return the table from which a new one differs by the fewest nodes, fewer than half of them.

    Scores can be compared only if both tables have weights, or neither.
    """
    nodes = set(ranking.nodes())
    if len(nodes) < _MANY:
        return None
    best, fewest = None, len(nodes) // 2
    for reference in _tables.valuerefs():  # a list, whatever other threads add
        table = reference()
        if table is None or not _are_comparable(table.ranking, ranking):
            continue
        added = len(nodes.difference(table.ranking.nodes()))
        if added < fewest:
            best, fewest = table, added
    return best


def _are_comparable(one: Ranking, other: Ranking) -> bool:
    return one.slots == other.slots and (one.weights is None) == (other.weights is None)


def _zeros(count: int, bound: int) -> MutableSequence[int]:
    """Return as many zeros in the smallest type for numbers below `bound`."""
    if bound <= _BYTE:
        return bytearray(count)
    return array("H" if bound <= _TWO_BYTES else "I", [0]) * count


def _scores(slot: int, seeds: Sequence[bytes], weights: Sequence[float] | None) -> Scores:
    """Return the scores of nodes for a slot.

    A score is -w / ln u, where u is the hash of slot and name as a fraction. Without weights, the hash
    alone gives the same order without a logarithm.
    """
    if weights is None:  # bytes are made and compared faster than integers, by 10 %
        return list(map(xxh3_64_digest, seeds, repeat(slot)))
    hashes = map(xxh3_64_intdigest, seeds, repeat(slot))
    return [-weight / log(_fraction(each)) for weight, each in zip(weights, hashes, strict=True)]


def _fraction(value: int) -> float:
    # A float holds the upper 52 of 64 bits plus a half: exact, and neither 0 nor 1.
    return ((value >> 12) + 0.5) / 2**52
