"""How a payload stands on Redis, which keeps no flags: behind a header, or bare."""

from __future__ import annotations

from typing import Final

from shardcache.core.codecs import Raw
from shardcache.core.commands import Payload
from shardcache.core.values.flags import (
    FLAGS_OF,
    INTEGER_FLAGS,
    JSON_FLAGS,
    KIND_OF,
    SHIFT,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    UNMARKED_FLAGS,
    is_decimal,
)

# On Redis this byte, the kind, and a version that no other write has stand before a value. A whole
# number and JSON stand bare. No UTF-8 text, JSON, msgpack, pickle or compressed data begins so:
# nothing that another client left is ours.
REDIS_MARK: Final = 0xC1


VERSION_SIZE: Final = 8  # bytes


HEADER_SIZE: Final = 2 + VERSION_SIZE


_NO_VERSION: Final = bytes(VERSION_SIZE)


_MARK: Final = bytes((REDIS_MARK,))


_BLANKS: Final = bytes.maketrans(b"01", b" \t")


# What stands bare on Redis of every client, and what of one whose codec is `raw`.
BARE: Final = frozenset({INTEGER_FLAGS, JSON_FLAGS})


NOTHING_BARE: Final[frozenset[int]] = frozenset()


BARE_BYTES: Final = BARE | {UNMARKED_FLAGS, TEXT_FLAGS, Raw.kind << SHIFT}


_HEADERS: Final = {flags: bytes((REDIS_MARK, kind)) for flags, kind in KIND_OF.items()}


def to_redis(payload: Payload, version: bytes = _NO_VERSION, bare: frozenset[int] = BARE) -> bytes:
    """Return what Redis stores: a header and the data, or these alone for flags that are `bare`.

    Bytes that begin as a header does get one, so that they are not taken for it.
    """
    flags, data = payload
    if flags in bare and data[:1] != _MARK:
        return data
    return _HEADERS[flags] + version + data


def white_space(version: bytes) -> bytes:
    """Return a version as spaces and tabs, one for each bit: what may stand after JSON unread."""
    return b"".join(format(byte, "08b").encode() for byte in version).translate(_BLANKS)


def from_redis(stored: bytes) -> Payload:
    """Return the payload of what Redis stored; with unknown flags when it is none of ours."""
    if len(stored) >= HEADER_SIZE and stored[0] == REDIS_MARK:
        return FLAGS_OF[stored[1]], stored[HEADER_SIZE:]
    return (INTEGER_FLAGS if is_decimal(stored) else UNKNOWN_FLAGS), stored
