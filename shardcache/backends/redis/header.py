"""The stored form of a payload on Redis, which keeps no flags: with a header, or bare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

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

# A header is this byte, the kind and a version that is unique to each write. Whole numbers and JSON
# are stored bare. No UTF-8 text, JSON, msgpack, pickle or compressed data begins with this byte, so a
# value of another client is never taken for ours.
REDIS_MARK: Final = 0xC1
VERSION_SIZE: Final = 8  # bytes
LAST_VERSION: Final = 2 ** (8 * VERSION_SIZE) - 1
HEADER_SIZE: Final = 2 + VERSION_SIZE
_NO_VERSION: Final = bytes(VERSION_SIZE)
_MARK: Final = bytes((REDIS_MARK,))
_BLANKS: Final = bytes.maketrans(b"01", b" \t")

# The flags that every client stores bare, and those that a client with the codec `raw` stores bare.
BARE: Final = frozenset({INTEGER_FLAGS, JSON_FLAGS})
NOTHING_BARE: Final[frozenset[int]] = frozenset()
BARE_BYTES: Final = BARE | {UNMARKED_FLAGS, TEXT_FLAGS, Raw.kind << SHIFT}

_HEADERS: Final = {flags: bytes((REDIS_MARK, kind)) for flags, kind in KIND_OF.items()}


def to_redis(payload: Payload, version: bytes = _NO_VERSION, bare: frozenset[int] = BARE) -> bytes:
    """Return the stored form: a header and the data, or only the data for flags that are `bare`.

    Data that begins like a header always gets one, so that it is not taken for a header.
    """
    return header_of(payload, version, bare) + payload[1]


def header_of(payload: Payload, version: bytes = _NO_VERSION, bare: frozenset[int] = BARE) -> bytes:
    """Return what stands before the data in the stored form: a header, or nothing."""
    flags, data = payload
    return b"" if flags in bare and data[:1] != _MARK else _HEADERS[flags] + version


def to_redis_all(
    payloads: Iterable[Payload], version: int, bare: frozenset[int] = BARE
) -> list[bytes]:
    """Return the stored form of each payload, with the versions that follow `version`."""
    return [
        data
        if flags in bare and data[:1] != _MARK
        else _HEADERS[flags] + (each & LAST_VERSION).to_bytes(VERSION_SIZE, "big") + data
        for each, (flags, data) in enumerate(payloads, version + 1)
    ]


def white_space(version: bytes) -> bytes:
    """Return a version as one space or tab per bit: white space that JSON parsers ignore."""
    return b"".join(format(byte, "08b").encode() for byte in version).translate(_BLANKS)


def from_redis_all(values: Iterable[bytes | None]) -> list[Any]:  # to which callers add errors
    """Return the payload of each stored form, `None` for `None`; raise `TypeError` for anything else."""
    return [
        None
        if stored is None
        else (FLAGS_OF[stored[1]], stored[HEADER_SIZE:])
        if len(stored) >= HEADER_SIZE and stored[0] == REDIS_MARK
        else from_redis(stored)
        for stored in values
    ]


def from_redis_headed(head: bytes, rest: bytes) -> Payload:
    """Return the payload of a stored form whose first `HEADER_SIZE` bytes, a header or not, are apart."""
    if head[0] == REDIS_MARK:
        return FLAGS_OF[head[1]], rest
    return from_redis(head + rest)


def from_redis_reply(data: bytes, start: int) -> Payload:
    """Return the payload of a stored form that begins at `start` of a reply, and ends before its last CRLF."""
    if len(data) - start >= HEADER_SIZE + 2 and data[start] == REDIS_MARK:
        return FLAGS_OF[data[start + 1]], data[
            start + HEADER_SIZE : -2
        ]  # a large value is copied once
    return from_redis(data[start:-2])


def from_redis(stored: bytes) -> Payload:
    """Return the payload of a stored form; its flags are unknown if another client stored it."""
    if len(stored) >= HEADER_SIZE and stored[0] == REDIS_MARK:
        return FLAGS_OF[stored[1]], stored[HEADER_SIZE:]
    return (INTEGER_FLAGS if is_decimal(stored) else UNKNOWN_FLAGS), stored
