"""Hash modulo the number of servers, to migrate from clients that place keys that way."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from shardcache.core.placement.hashing import KeyHash
from shardcache.core.placement.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies import key_hashes
from shardcache.strategies.base import BuiltPlacement, StrategyBase, Value, preference_by_rehashing


class Modulo(StrategyBase):
    """The placement of clients that hash modulo the number of servers; the nodes' order counts.

    `profile` is `python-memcached`, `libmemcached` (its distribution `modula`) or `twemproxy`
    (`distribution: modula`). The last two take the option `hash`, with their own names for hashes.
    With python-memcached and twemproxy a server of weight 3 is listed three times; libmemcached has
    no weights here. Any change of nodes moves most keys: use this to find existing keys, then plan a
    change of strategy. The caller's key is hashed without the namespace.
    """

    registered: ClassVar[str] = "modulo"
    hashes_namespace: ClassVar[bool] = False
    choices: ClassVar[dict[str, Sequence[Value]]] = {
        "profile": ("python-memcached", "libmemcached", "twemproxy"),
        "hash": key_hashes.NAMES,
    }

    def __init__(self, **options: Any) -> None:  # as the base
        """Check the options; raise `ConfigurationError` for those that are unknown or bad."""
        super().__init__(**options)
        name = str(self.options["profile"])
        self._profile = PROFILES[name]
        self._hash = key_hashes.choose(
            self.registered, name, self._profile.hashes, str(self.options["hash"])
        )

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys by their hash modulo the length of the list."""
        servers = self._profile.server_list(nodes)
        key_hash, count = self._hash, len(servers)

        def owner(key: bytes) -> Node:
            return servers[key_hash(key) % count]

        def inputs() -> Iterable[bytes]:
            return (self.name.encode(), *(node.name.encode() for node in servers))

        return BuiltPlacement(owner, preference_by_rehashing(owner, nodes), inputs)


def _repeat_by_weight(nodes: Sequence[Node]) -> Sequence[Node]:
    """Return the nodes, each as many times as its weight."""
    fractional = [node.name for node in nodes if node.weight != int(node.weight)]
    if fractional:
        raise TopologyError(f"strategy 'modulo' takes whole weights: {', '.join(fractional)}")
    total = int(sum(node.weight for node in nodes))
    if total > MAX_SERVERS:
        raise TopologyError(f"strategy 'modulo': weights sum to {total}, above {MAX_SERVERS}")
    return [node for node in nodes for _ in range(int(node.weight))]


def _refuse_weights(nodes: Sequence[Node]) -> Sequence[Node]:
    if len({node.weight for node in nodes}) > 1:
        raise TopologyError("strategy 'modulo': profile libmemcached takes no weights")
    return nodes


def _python_memcached_hash(key: bytes) -> int:
    return (zlib.crc32(key) >> 16) & 0x7FFF or 1


class Profile(NamedTuple):
    """The list of servers of one software, and its key hashes by name."""

    server_list: Callable[[Sequence[Node]], Sequence[Node]]
    hashes: Mapping[str, KeyHash]


MAX_SERVERS: Final = 1_000_000  # in a list that repeats servers by weight

PROFILES: Final[dict[str, Profile]] = {
    "python-memcached": Profile(_repeat_by_weight, {key_hashes.DEFAULT: _python_memcached_hash}),
    "libmemcached": Profile(_refuse_weights, key_hashes.LIBMEMCACHED),
    "twemproxy": Profile(_repeat_by_weight, key_hashes.TWEMPROXY),
}
