"""The ketama family of rings, by the profiles of those who put keys there before us."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Any, ClassVar, Final

from shardcache.core import hashing
from shardcache.core.hashing import KeyHash
from shardcache.core.nodes import Node
from shardcache.errors import ConfigurationError
from shardcache.strategies.base import Placed, StrategyBase, read_choice
from shardcache.strategies.rings import Point, ring

DEFAULT_PORT: Final = ":11211"
POINTS_PER_DIGEST: Final = 4

# The hashes of twemproxy's pool option `hash` that are given here exactly.
KEY_HASHES: Final[dict[str, KeyHash]] = {
    "fnv1a_64": hashing.fnv1a_64,
    "fnv1a_32": hashing.fnv1a_32,
    "fnv1_64": hashing.fnv1_64,
    "fnv1_32": hashing.fnv1_32,
    "one_at_a_time": hashing.one_at_a_time,
    "md5": hashing.md5,
    "crc16": hashing.crc16,
    "crc32": hashing.crc32,
    "crc32a": hashing.crc32a,
}


class Ketama(StrategyBase):
    """A ring of MD5 points, so that keys stay where another client or proxy put them.

    `profile` says whose: `libmemcached` (its `ketama_weighted`, the default), `pylibmc` (its
    behaviour `ketama`), `libketama`, `twemproxy` (its pool option `hash` as the option `hash`) or
    `spymemcached`. What is hashed is the caller's key without the namespace, as they all do.
    Labels come from the nodes' names, so an address may change without moving a key. Weighted
    ketama moves more keys than it must when a node leaves.
    """

    registered: ClassVar[str] = "ketama"
    hashes_namespace: ClassVar[bool] = False

    def __init__(
        self,
        *,
        profile: str = "libmemcached",
        hash: str | None = None,  # noqa: A002 - twemproxy's own name for it
        **options: Any,  # see StrategyBase
    ) -> None:
        super().__init__(**options)
        self.profile: str = read_choice(self.registered, "profile", profile, PROFILES)
        if hash is not None and self.profile != "twemproxy":
            raise ConfigurationError(
                f"strategy 'ketama': hash goes with profile=twemproxy, not {self.profile}"
            )
        self.hash: str = read_choice(self.registered, "hash", hash or "fnv1a_64", KEY_HASHES)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Give the names of the options."""
        return (*super().options(), "hash", "profile")

    def chosen(self) -> dict[str, object]:
        """Give the options that differ from their defaults."""
        chosen = super().chosen()
        if self.profile != "libmemcached":
            chosen["profile"] = self.profile
        if self.hash != "fnv1a_64":
            chosen["hash"] = self.hash
        return chosen

    def place(self, nodes: Sequence[Node]) -> Placed:
        """Place every key on the ring of the profile."""
        profile = PROFILES[self.profile]
        key_hash = profile.key_hash or KEY_HASHES[self.hash]
        return ring(profile.points(nodes), nodes, key_hash)


@dataclass(frozen=True, slots=True)
class Profile:
    """One software's ring: its points, and its key hash (`None`: by option)."""

    points: Callable[[Sequence[Node]], Iterable[Point]]
    key_hash: KeyHash | None


def _as_written(node: Node) -> str:
    return node.name


def _without_default_port(node: Node) -> str:
    """Give libmemcached's label: the host alone on port 11211; IPv6 without brackets."""
    host, colon, port = node.name.rpartition(":")
    if not colon or not port.isdigit():
        return node.name
    host = host.removeprefix("[").removesuffix("]")
    return host if f":{port}" == DEFAULT_PORT else f"{host}:{port}"


def _named_or_without_default_port(node: Node) -> str:
    """Give twemproxy's label: a name that was given, as it is; else as libmemcached."""
    return node.name if node.named else _without_default_port(node)


def _md5_points(
    nodes: Sequence[Node], label: Callable[[Node], str], digests: Sequence[int]
) -> Iterator[Point]:
    """Give four little-endian points of each `md5(label-i)`, for as many `i` as a node has."""
    for index, node in enumerate(nodes):
        text = label(node).encode()
        for number in range(digests[index]):
            digest = md5(b"%s-%d" % (text, number), usedforsecurity=False).digest()
            for place in struct.unpack("<4I", digest):
                yield place, index


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _share(node: Node, nodes: Sequence[Node]) -> float:
    """Give the node's share of all weight as C's `float`."""
    total = sum(each.weight for each in nodes)
    return _float32(_float32(node.weight) / _float32(total))


def _float32_digests(nodes: Sequence[Node]) -> list[int]:
    """Give each node's number of digests as libmemcached's `float` arithmetic has it.

    Rounding makes 39 of 40 for equal nodes at some sizes (25, 47, 50, 55, …): part of where the
    keys are.
    """
    return [_float32_count(_share(node, nodes), len(nodes)) for node in nodes]


def _float32_count(share: float, count: int) -> int:
    scaled = _float32(_float32(_float32(share * 160) / POINTS_PER_DIGEST) * _float32(count))
    return math.floor(_float32(scaled + 1e-10))


def _libketama_digests(nodes: Sequence[Node]) -> list[int]:
    """Give each node's number of digests as the original libketama has it: `double` in between."""
    return [math.floor(_float32(_share(node, nodes) * 40.0 * len(nodes))) for node in nodes]


def _spymemcached_digests(nodes: Sequence[Node]) -> list[int]:
    """Give 40 digests each when unweighted; spymemcached rounds weighted ones as libmemcached."""
    equal = len({node.weight for node in nodes}) == 1
    return [40] * len(nodes) if equal else _float32_digests(nodes)


def _libmemcached_points(nodes: Sequence[Node]) -> Iterable[Point]:
    return _md5_points(nodes, _without_default_port, _float32_digests(nodes))


def _pylibmc_points(nodes: Sequence[Node]) -> Iterable[Point]:
    """Give 100 points a node by the key's own hash; with any weight above 1 the MD5 ring."""
    if any(node.weight > 1 for node in nodes):
        return _libmemcached_points(nodes)
    return (
        (hashing.one_at_a_time(b"%s-%d" % (_without_default_port(node).encode(), number)), index)
        for index, node in enumerate(nodes)
        for number in range(100)
    )


PROFILES: Final[dict[str, Profile]] = {
    "libmemcached": Profile(_libmemcached_points, hashing.md5),
    "pylibmc": Profile(_pylibmc_points, hashing.one_at_a_time),
    "libketama": Profile(
        lambda nodes: _md5_points(nodes, _as_written, _libketama_digests(nodes)), hashing.md5
    ),
    "twemproxy": Profile(
        lambda nodes: _md5_points(nodes, _named_or_without_default_port, _float32_digests(nodes)),
        None,
    ),
    "spymemcached": Profile(
        lambda nodes: _md5_points(nodes, _as_written, _spymemcached_digests(nodes)), hashing.md5
    ),
}
