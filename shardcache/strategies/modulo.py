"""Hash modulo the number of servers: a place to migrate from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from shardcache.core import hashing
from shardcache.core.hashing import KeyHash
from shardcache.core.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies.base import Placed, StrategyBase, read_choice, rehashed


class Modulo(StrategyBase):
    """The placement of python-memcached, or of libmemcached's `modula`; the nodes' order counts.

    `profile` is `python-memcached` (CRC-32, a server of weight 3 listed thrice), `libmemcached`
    (its default hash) or `libmemcached-md5`. Any change of nodes moves most keys: use it to find
    keys in place, then `plan` a change of strategy.
    """

    registered: ClassVar[str] = "modulo"
    hashes_namespace: ClassVar[bool] = False

    def __init__(self, *, profile: str = "python-memcached", **options: Any) -> None:  # as the base
        super().__init__(**options)
        self.profile: str = read_choice(self.registered, "profile", profile, PROFILES)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Give the names of the options."""
        return (*super().options(), "profile")

    def chosen(self) -> dict[str, object]:
        """Give the options that differ from their defaults."""
        default = self.profile == "python-memcached"
        return super().chosen() | ({} if default else {"profile": self.profile})

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by its hash modulo the length of the list."""
        key_hash, buckets_of = PROFILES[self.profile]
        buckets = buckets_of(nodes)
        count = len(buckets)

        def owner(key: bytes) -> Node:
            return buckets[key_hash(key) % count]

        def inputs() -> Iterable[bytes]:
            yield self.profile.encode()
            yield from (node.name.encode() for node in buckets)

        return Placed(owner, rehashed(owner, nodes), inputs)


def _python_memcached_hash(key: bytes) -> int:
    return (zlib.crc32(key) >> 16) & 0x7FFF or 1


def _repeated(nodes: Sequence[Node]) -> list[Node]:
    """Give each node as many times as its weight says, as python-memcached does."""
    broken = [node.name for node in nodes if node.weight != int(node.weight)]
    if broken:
        raise TopologyError(f"strategy 'modulo' takes whole weights: {', '.join(broken)}")
    return [node for node in nodes for _ in range(int(node.weight))]


def _unweighted(nodes: Sequence[Node]) -> list[Node]:
    if len({node.weight for node in nodes}) > 1:
        raise TopologyError("strategy 'modulo' takes weights with profile=python-memcached only")
    return list(nodes)


PROFILES: Final[dict[str, tuple[KeyHash, Callable[[Sequence[Node]], list[Node]]]]] = {
    "python-memcached": (_python_memcached_hash, _repeated),
    "libmemcached": (hashing.one_at_a_time, _unweighted),
    "libmemcached-md5": (hashing.md5, _unweighted),
}
