"""The key hashes of other clients and proxies, under the names used there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shardcache.core.placement import hashing
from shardcache.core.placement.hashing import KeyHash
from shardcache.errors import ConfigurationError

DEFAULT: Final = "default"  # the software's own default; libmemcached uses this word for it

_COMMON: Final[dict[str, KeyHash]] = {
    "md5": hashing.md5,
    "fnv1_64": hashing.fnv1_64,
    "fnv1a_64": hashing.fnv1a_64,
    "fnv1_32": hashing.fnv1_32,
    "fnv1a_32": hashing.fnv1a_32,
    "hsieh": hashing.hsieh,
    "murmur": hashing.murmur,
    "jenkins": hashing.jenkins,
}
LIBMEMCACHED: Final[dict[str, KeyHash]] = {
    DEFAULT: hashing.one_at_a_time,
    "crc": hashing.crc32,
    **_COMMON,
}
TWEMPROXY: Final[dict[str, KeyHash]] = {
    DEFAULT: hashing.fnv1a_64,
    "one_at_a_time": hashing.one_at_a_time,
    "crc16": hashing.crc16_wide,
    "crc32": hashing.crc32,
    "crc32a": hashing.crc32a,
    **_COMMON,
}
NAMES: Final = tuple(dict.fromkeys((*LIBMEMCACHED, *TWEMPROXY)))

CRC32_SPACE: Final = 2**15


def space_of(key_hash: KeyHash) -> int:
    """Return the number of possible values of a hash."""
    return CRC32_SPACE if key_hash is hashing.crc32 else 2**32


def choose(strategy: str, profile: str, hashes: Mapping[str, KeyHash], name: str) -> KeyHash:
    """Return the profile's hash of that name; raise `ConfigurationError` if it has none."""
    if name not in hashes:
        raise ConfigurationError(
            f"strategy {strategy!r}: profile {profile} has no such hash"
            f" (known: {', '.join(hashes)})"
        )
    return hashes[name]
