"""The placement of pymemcache's `HashClient`, so that switching from it moves no key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from shardcache.core.hashing import murmur3_32
from shardcache.core.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies.base import Placed, StrategyBase


class Pymemcache(StrategyBase):
    """Rendezvous by MurmurHash3 of `host:port-key`, as pymemcache 4.0 computes it in Python.

    The cost grows with the number of nodes. Weights are refused, for `HashClient` has none. What is
    hashed is the caller's key without the namespace, as there.
    """

    registered: ClassVar[str] = "pymemcache"
    hashes_namespace: ClassVar[bool] = False

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by the nodes' scores."""
        if len({node.weight for node in nodes}) > 1:
            raise TopologyError("strategy 'pymemcache' takes no weights; use rendezvous")
        labelled = [(_folded(f"{node.name}-"), node.name, node) for node in nodes]

        def ranked(key: bytes) -> list[tuple[int, str, Node]]:
            text = _folded(key.decode("utf-8", "surrogateescape"))
            return [(murmur3_32(label + text), name, node) for label, name, node in labelled]

        def owner(key: bytes) -> Node:
            return max(ranked(key), key=_rank)[2]

        def preference(key: bytes, count: int) -> Sequence[Node]:
            ordered = sorted(ranked(key), key=_rank, reverse=True)
            return [node for _, _, node in ordered[:count]]

        def inputs() -> Iterable[bytes]:
            yield b"murmur3 pymemcache"
            yield from sorted(node.name.encode() for node in nodes)

        return Placed(owner, preference, inputs)


def _rank(scored: tuple[int, str, Node]) -> tuple[int, str]:
    return scored[0], scored[1]


def _folded(text: str) -> bytes:
    """Give a text as its murmur sees it: the low byte of each character."""
    return bytes(ord(character) & 0xFF for character in text)
