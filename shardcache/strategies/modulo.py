"""Hash modulo the number of servers: a place to migrate from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from shardcache.core.hashing import KeyHash
from shardcache.core.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies import keyhashes
from shardcache.strategies.base import Placed, StrategyBase, Value, rehashed


class Modulo(StrategyBase):
    """The placement of clients that hash modulo the number of servers; the nodes' order counts.

    `profile` is `python-memcached`, `libmemcached` (its distribution `modula`) or `twemproxy`
    (`distribution: modula`); the last two take the option `hash`, by the names those use. With
    python-memcached and twemproxy a server of weight 3 is listed thrice; libmemcached knows no
    weights here. Any change of nodes moves most keys: use it to find keys where they are, then
    plan a change of strategy. What is hashed is the caller's key without the namespace.
    """

    registered: ClassVar[str] = "modulo"
    hashes_namespace: ClassVar[bool] = False
    choices: ClassVar[dict[str, Sequence[Value]]] = {
        "profile": ("python-memcached", "libmemcached", "twemproxy"),
        "hash": keyhashes.NAMES,
    }

    def __init__(self, **options: Any) -> None:  # as the base
        """Read the options; raise `ConfigurationError` for those that are unknown or bad."""
        super().__init__(**options)
        name = str(self.options["profile"])
        self._profile = PROFILES[name]
        self._hash = keyhashes.choose(
            self.registered, name, self._profile.hashes, str(self.options["hash"])
        )

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key by its hash modulo the length of the list."""
        listed = self._profile.listed(nodes)
        key_hash, count = self._hash, len(listed)

        def owner(key: bytes) -> Node:
            return listed[key_hash(key) % count]

        def inputs() -> Iterable[bytes]:
            return (self.name.encode(), *(node.name.encode() for node in listed))

        return Placed(owner, rehashed(owner, nodes), inputs)


def _repeated(nodes: Sequence[Node]) -> Sequence[Node]:
    """Return each node as many times as its weight says."""
    broken = [node.name for node in nodes if node.weight != int(node.weight)]
    if broken:
        raise TopologyError(f"strategy 'modulo' takes whole weights: {', '.join(broken)}")
    total = int(sum(node.weight for node in nodes))
    if total > MOST_LISTED:
        raise TopologyError(f"strategy 'modulo': weights sum to {total}, above {MOST_LISTED}")
    return [node for node in nodes for _ in range(int(node.weight))]


def _unweighted(nodes: Sequence[Node]) -> Sequence[Node]:
    if len({node.weight for node in nodes}) > 1:
        raise TopologyError("strategy 'modulo': profile libmemcached takes no weights")
    return nodes


def _python_memcached_hash(key: bytes) -> int:
    return (zlib.crc32(key) >> 16) & 0x7FFF or 1


class Profile(NamedTuple):
    """One software's list of servers, and its key hashes by name."""

    listed: Callable[[Sequence[Node]], Sequence[Node]]
    hashes: Mapping[str, KeyHash]


MOST_LISTED: Final = 1_000_000  # of a list that repeats servers by weight

PROFILES: Final[dict[str, Profile]] = {
    "python-memcached": Profile(_repeated, {keyhashes.DEFAULT: _python_memcached_hash}),
    "libmemcached": Profile(_unweighted, keyhashes.LIBMEMCACHED),
    "twemproxy": Profile(_repeated, keyhashes.TWEMPROXY),
}
