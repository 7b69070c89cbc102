"""The placement of pymemcache's `HashClient`, so that switching from it moves no key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from shardcache.core.placement.hashing import murmur3_32
from shardcache.core.placement.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies.base import BuiltPlacement, StrategyBase, split_port


class Pymemcache(StrategyBase):
    """Rendezvous by MurmurHash3 of `host:port-key`, as pymemcache 4.0 computes it in Python.

    The cost grows with the number of nodes. Weights are refused, because `HashClient` has none. The
    caller's key is hashed without the namespace, as in pymemcache.
    """

    registered: ClassVar[str] = "pymemcache"
    hashes_namespace: ClassVar[bool] = False

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys by score, then by the greatest label; refuse weights."""
        if len({node.weight for node in nodes}) > 1:
            raise TopologyError("strategy 'pymemcache' takes no weights; use rendezvous")
        ordered = sorted(nodes, key=_label, reverse=True)
        prefixes = [_low_bytes(f"{_label(node)}-") for node in ordered]

        def scores_of(key: bytes) -> Sequence[int]:
            text = key if key.isascii() else _low_bytes(key.decode("utf-8", "surrogateescape"))
            return [murmur3_32(prefix + text) for prefix in prefixes]

        def owner(key: bytes) -> Node:
            scores = scores_of(key)
            return ordered[scores.index(max(scores))]

        def preference(key: bytes, count: int) -> Sequence[Node]:
            scores = scores_of(key)
            ranked = sorted(range(len(ordered)), key=scores.__getitem__, reverse=True)
            return [ordered[index] for index in ranked[: max(count, 0)]]

        def inputs() -> Iterable[bytes]:
            return (b"pymemcache murmur3_32", *(node.name.encode() for node in ordered))

        return BuiltPlacement(owner, preference, inputs)


def _label(node: Node) -> str:
    """Return `HashClient`'s own key of a server: `host:port`, IPv6 without brackets."""
    host, port = split_port(node)
    return f"{host}:{port}" if port else host


def _low_bytes(text: str) -> bytes:
    """Return a text as pymemcache's murmur reads it: the low byte of each character."""
    return bytes(ord(character) & 0xFF for character in text)
