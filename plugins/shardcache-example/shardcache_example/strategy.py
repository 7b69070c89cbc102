"""A strategy that is easy to recompute by hand: rendezvous hashing by SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from shardcache import ConfigurationError, Node


class Sha256:
    """Each key belongs to the node for which `sha256(name + key)` is greatest."""

    name = "sha256"
    hashes_namespace = True

    def __init__(self, **options: Any) -> None:  # refused, whatever they are
        if options:
            raise ConfigurationError(f"strategy 'sha256' has no options (given: {list(options)})")

    def build(self, nodes: Sequence[Node]) -> Ranked:
        """Place every key on `nodes`."""
        return Ranked(nodes)

    def check_change(self, before: Sequence[Node], after: Sequence[Node]) -> None:
        """Accept every change: any node may come or leave."""


class Ranked:
    """A placement that ranks all nodes for a key."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)

    @property
    def digest(self) -> bytes:
        """Return a digest of all that decides placement: here, the names."""
        return sha256("\0".join(sorted(node.name for node in self._nodes)).encode()).digest()

    def owner(self, key: bytes) -> Node:
        """Return the node of `key`."""
        return max(self._nodes, key=lambda node: _score(node, key))

    def preference(self, key: bytes, count: int) -> Sequence[Node]:
        """Return up to `count` nodes, the owner first."""
        return sorted(self._nodes, key=lambda node: _score(node, key), reverse=True)[:count]


def _score(node: Node, key: bytes) -> bytes:
    return sha256(node.name.encode() + b"\0" + key).digest()
