"""The ketama family of rings, with a profile for each client or proxy that uses one."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from shardcache.core.placement import hashing
from shardcache.core.placement.hashing import KeyHash
from shardcache.core.placement.nodes import Node
from shardcache.errors import TopologyError
from shardcache.strategies import key_hashes
from shardcache.strategies.base import BuiltPlacement, StrategyBase, Value, split_port
from shardcache.strategies.ring import ring

DEFAULT_PORT: Final = "11211"
DIGESTS: Final = 40  # of each node when all are equal, rounding aside
POINTS_PER_DIGEST: Final = 4
PYLIBMC_POINTS: Final = 100

Points: TypeAlias = Sequence[Sequence[int]]  # of each node


class Ketama(StrategyBase):
    """A ring of MD5 points, so that keys stay where another client or proxy put them.

    `profile` names that software: `libmemcached` (its `ketama_weighted`, the default), `pylibmc`
    (its behaviour `ketama`), `libketama`, `twemproxy` (its pool option `hash` is the option `hash`
    here) or `spymemcached`. The caller's key is hashed without the namespace, as they all do. Labels
    come from the nodes' names, so an address may change without moving a key. Weighted ketama moves
    more keys than necessary when a node leaves.
    """

    registered: ClassVar[str] = "ketama"
    hashes_namespace: ClassVar[bool] = False
    choices: ClassVar[dict[str, Sequence[Value]]] = {
        "profile": ("libmemcached", "pylibmc", "libketama", "twemproxy", "spymemcached"),
        "hash": tuple(key_hashes.TWEMPROXY),
    }

    def __init__(self, **options: Any) -> None:  # as the base
        """Check the options; raise `ConfigurationError` for those that are unknown or bad."""
        super().__init__(**options)
        name = str(self.options["profile"])
        self._points = PROFILES[name].points
        self._hash = key_hashes.choose(
            self.registered, name, PROFILES[name].hashes, str(self.options["hash"])
        )

    def place(self, nodes: Sequence[Node]) -> BuiltPlacement:
        """Return the placement of all keys on the profile's ring."""
        return ring(nodes, self._points(nodes), self._hash, self.name)


def _as_written(node: Node) -> str:
    return node.name


def _without_default_port(node: Node) -> str:
    """Return libmemcached's label: the host alone on port 11211; IPv6 without brackets."""
    host, port = split_port(node)
    return host if port in {"", DEFAULT_PORT} else f"{host}:{port}"


def _named_or_without_default_port(node: Node) -> str:
    """Return twemproxy's label: the node's own name if it was set, otherwise libmemcached's label."""
    return node.name if node.named else _without_default_port(node)


def _md5_points(
    nodes: Sequence[Node], label: Callable[[Node], str], digests: Sequence[int]
) -> Points:
    """Return each node's points: four little-endian ones from each of its digests `md5(label-i)`."""
    return [
        _points_of(label(node).encode(), count) for node, count in zip(nodes, digests, strict=True)
    ]


def _points_of(label: bytes, count: int) -> Sequence[int]:
    digests = b"".join(
        md5(b"%s-%d" % (label, number), usedforsecurity=False).digest() for number in range(count)
    )
    return struct.unpack(f"<{count * POINTS_PER_DIGEST}I", digests)


def _float32(value: float) -> float:
    """Round to C's `float`."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _shares(nodes: Sequence[Node]) -> list[float]:
    """Return each node's share of the total weight, in C's `float` arithmetic."""
    total = _float32(sum(node.weight for node in nodes))
    if not total:
        raise TopologyError("strategy 'ketama': the weights are too small for its arithmetic")
    return [_float32(_float32(node.weight) / total) for node in nodes]


def _libmemcached_digests(nodes: Sequence[Node]) -> list[int]:
    """Return each node's number of digests, in libmemcached's `float` arithmetic.

    With some numbers of equal nodes (25, 47, 50, 55, …) rounding turns 40 into 39. That decides
    where keys are, so it is kept.
    """
    count = len(nodes)
    scaled = [_float32(_float32(share * DIGESTS) * count) for share in _shares(nodes)]
    return [math.floor(_float32(each + 1e-10)) for each in scaled]


def _libketama_digests(nodes: Sequence[Node]) -> list[int]:
    """Return each node's number of digests as in libketama: in `double`, rounded at the end."""
    return [math.floor(_float32(share * DIGESTS * len(nodes))) for share in _shares(nodes)]


def _spymemcached_digests(nodes: Sequence[Node]) -> list[int]:
    """Return exactly 40 digests a node without weights; with weights, as libmemcached rounds."""
    equal = len({node.weight for node in nodes}) == 1
    return [DIGESTS] * len(nodes) if equal else _libmemcached_digests(nodes)


def _libmemcached_points(nodes: Sequence[Node]) -> Points:
    return _md5_points(nodes, _without_default_port, _libmemcached_digests(nodes))


def _pylibmc_points(nodes: Sequence[Node]) -> Points:
    """Return 100 points a node by the key's own hash; with weights, libmemcached's MD5 points."""
    if any(node.weight != 1 for node in nodes):
        return _libmemcached_points(nodes)
    labels = [_without_default_port(node).encode() for node in nodes]
    return [
        [hashing.one_at_a_time(b"%s-%d" % (label, number)) for number in range(PYLIBMC_POINTS)]
        for label in labels
    ]


def _libketama_points(nodes: Sequence[Node]) -> Points:
    return _md5_points(nodes, _as_written, _libketama_digests(nodes))


def _twemproxy_points(nodes: Sequence[Node]) -> Points:
    return _md5_points(nodes, _named_or_without_default_port, _libmemcached_digests(nodes))


def _spymemcached_points(nodes: Sequence[Node]) -> Points:
    return _md5_points(nodes, _as_written, _spymemcached_digests(nodes))


class Profile(NamedTuple):
    """One software's ring: its points, and its key hashes by name."""

    points: Callable[[Sequence[Node]], Points]
    hashes: Mapping[str, KeyHash]


PROFILES: Final[dict[str, Profile]] = {
    "libmemcached": Profile(_libmemcached_points, {key_hashes.DEFAULT: hashing.md5}),
    "pylibmc": Profile(_pylibmc_points, {key_hashes.DEFAULT: hashing.one_at_a_time}),
    "libketama": Profile(_libketama_points, {key_hashes.DEFAULT: hashing.md5}),
    "twemproxy": Profile(_twemproxy_points, key_hashes.TWEMPROXY),
    "spymemcached": Profile(_spymemcached_points, {key_hashes.DEFAULT: hashing.md5}),
}
