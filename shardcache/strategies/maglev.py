"""Maglev hashing (Eisenbud et al., NSDI 2016) as Envoy builds it, weights included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapreplace
from itertools import chain, islice, repeat
from typing import ClassVar, Final

from xxhash import xxh64_intdigest

from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import HashRanges
from shardcache.errors import TopologyError
from shardcache.strategies.base import (
    BuiltPlacement,
    StrategyBase,
    Value,
    digest_parts,
    preference_by_rehashing,
)

TABLE_SIZES: Final = (65_537, 655_373, 251)


class Maglev(StrategyBase):
    """A lookup table with near-perfect balance: each node's entries match its weight within a few.

    The option `table` is the number of entries, a prime: 65,537, 655,373 for many nodes, or 251 for
    small examples. A change of nodes moves slightly more keys than necessary. The key is hashed with
    its namespace.
    """

    registered: ClassVar[str] = "maglev"
    choices: ClassVar[dict[str, Sequence[Value]]] = {"table": TABLE_SIZES}

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys by the table; refuse more nodes than entries."""
        size = int(self.options["table"])
        if len(nodes) > size:
            raise TopologyError(f"strategy 'maglev': {len(nodes)} nodes need a table above {size}")
        ordered = sorted(nodes, key=lambda node: node.name)
        table = [ordered[index] for index in fill_table(ordered, size)]
        digest = xxh64_intdigest

        def owner(key: bytes) -> Node:
            return table[digest(key) % size]

        def owners(keys: Sequence[bytes]) -> list[Node]:
            return [table[digest(key) % size] for key in keys]

        def inputs() -> Iterable[bytes]:
            names = "\0".join(node.name for node in table)
            return (b"maglev xxh64", b"%d" % size, *digest_parts(ordered), names.encode())

        def hash_ranges() -> HashRanges:
            return HashRanges(f"xxh64 % {size}", range(1, size + 1), table.__getitem__)

        preference = preference_by_rehashing(owner, ordered)
        return BuiltPlacement(owner, preference, inputs, hash_ranges, owners)


def fill_table(nodes: Sequence[Node], size: int) -> list[int]:
    """Return the table as indices into `nodes`: at each turn a node claims its next free entry."""
    places = [xxh64_intdigest(node.name.encode(), 0) % size for node in nodes]
    skips = [xxh64_intdigest(node.name.encode(), 1) % (size - 1) + 1 for node in nodes]
    table = [-1] * size
    for index in islice(_turns([node.weight for node in nodes], size), size):
        place, skip = places[index], skips[index]
        while table[place] >= 0:
            place = (place + skip) % size
        table[place] = index
        places[index] = (place + skip) % size
    return table


def _turns(weights: Sequence[float], rounds: int) -> Iterator[int]:
    """Yield the indices of the nodes in the order of their turns, of at least `rounds` rounds.

    Weights are scaled to a sum of 1. A node has a turn in a round only if round × weight has reached
    its target, which then grows by the greatest weight. So the heaviest node has one in every round.
    """
    if len(set(weights)) == 1:
        return chain.from_iterable(repeat(range(len(weights)), rounds))
    total = sum(weights)
    return _weighted_turns([weight / total for weight in weights], rounds)


def _weighted_turns(weights: Sequence[float], rounds: int) -> Iterator[int]:
    # A heap of (round, index) skips the rounds in which a light node has no turn: most of them.
    greatest = max(weights)
    targets = [0.0] * len(weights)
    due = [(1, index) for index in range(len(weights))]
    while True:
        turn, index = due[0]
        yield index
        targets[index] += greatest
        following = _round_reaching(targets[index], weights[index], rounds + 1)
        heapreplace(due, (max(turn + 1, following), index))


def _round_reaching(target: float, weight: float, last: int) -> int:
    """Return the first round in which round × weight, as a float, reaches the target, or `last`.

    The quotient, rounded down, is that round or the one before it.
    """
    if last * weight < target:
        return last
    turn = int(target / weight)
    while turn * weight < target:
        turn += 1
    return turn
