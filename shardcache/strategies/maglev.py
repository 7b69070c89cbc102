"""Maglev hashing (Eisenbud et al., NSDI 2016) as Envoy builds it, weights included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from xxhash import xxh64_intdigest

from shardcache.core.nodes import Node
from shardcache.strategies.base import (
    Placed,
    StrategyBase,
    described,
    read_choice,
    rehashed,
)

TABLE_SIZES: Final = (65_537, 655_373, 251)


class Maglev(StrategyBase):
    """Near-perfect balance: every node holds as many table entries as its weight asks, within one.

    `table` is the number of entries, a prime: 65,537, 655,373 for many nodes, or 251.
    """

    registered: ClassVar[str] = "maglev"

    def __init__(self, *, table: str | int = TABLE_SIZES[0], **options: Any) -> None:  # as the base
        super().__init__(**options)
        self.table: int = read_choice(self.registered, "table", table, TABLE_SIZES)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Give the names of the options."""
        return (*super().options(), "table")

    def chosen(self) -> dict[str, object]:
        """Give the options that differ from their defaults."""
        return super().chosen() | ({} if self.table == TABLE_SIZES[0] else {"table": self.table})

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by the table."""
        ordered = sorted(nodes, key=lambda node: node.name)
        size = self.table
        table = [ordered[index] for index in filled(ordered, size)]
        digest = xxh64_intdigest

        def owner(key: bytes) -> Node:
            return table[digest(key) % size]

        def inputs() -> Iterable[bytes]:
            yield b"xxh64 maglev"
            yield from described(ordered)
            yield "\0".join(node.name for node in table).encode()

        return Placed(owner, rehashed(owner, ordered), inputs)


def filled(nodes: Sequence[Node], size: int) -> list[int]:
    """Give the table, as indices into `nodes`: in turns each node claims its next free entry.

    With weights, scaled so that their sum is 1, a node takes a turn only when round × weight has
    reached its target, which then grows by the greatest weight.
    """
    total = sum(node.weight for node in nodes)
    weights = [node.weight / total for node in nodes]
    greatest = max(weights)
    targets = [0.0] * len(nodes)
    places = [xxh64_intdigest(node.name.encode(), 0) % size for node in nodes]
    skips = [xxh64_intdigest(node.name.encode(), 1) % (size - 1) + 1 for node in nodes]
    table = [-1] * size
    left, turn = size, 0
    while True:
        turn += 1
        for index, weight in enumerate(weights):
            if turn * weight < targets[index]:
                continue
            targets[index] += greatest
            place, skip = places[index], skips[index]
            while table[place] >= 0:
                place = (place + skip) % size
            table[place] = index
            places[index] = (place + skip) % size
            left -= 1
            if not left:
                return table
