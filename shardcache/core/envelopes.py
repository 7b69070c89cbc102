"""What is stored around a value that has an age: until when it is fresh, and what it depends on."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardcache.errors import DecodeError

# The form, the flags of the value within, until when it is fresh, how long it took, its lifetime,
# and the number of versions that follow.
_HEADER: Final = struct.Struct("!BIdddB")
FORM: Final = 1
VERSION_SIZE: Final = 8  # bytes of each version of a tag
MAX_VERSIONS: Final = 255


class Envelope(NamedTuple):
    """A payload with what decides whether it is served.

    `fresh_until` is in seconds of the clock that all machines share, `delta` is how many seconds
    making the value took, `ttl` for how many it was fresh at first (both may be infinite).
    `versions` are those of its tags, in their order, when the making began.
    """

    flags: int
    data: bytes
    fresh_until: float
    delta: float
    ttl: float
    versions: Sequence[bytes] = ()


def pack(envelope: Envelope) -> bytes:
    """Return the bytes of an envelope."""
    versions = b"".join(envelope.versions)
    header = _HEADER.pack(
        FORM,
        envelope.flags,
        envelope.fresh_until,
        envelope.delta,
        envelope.ttl,
        len(envelope.versions),
    )
    return header + versions + envelope.data


def unpack(stored: bytes) -> Envelope:
    """Return the envelope of such bytes; raise `DecodeError` when they are none."""
    try:
        form, flags, fresh_until, delta, ttl, count = _HEADER.unpack_from(stored)
    except struct.error:
        form = None
    begin = _HEADER.size
    if form != FORM or len(stored) < begin + count * VERSION_SIZE:
        raise DecodeError("marked as a value with an age, but not one")
    end = begin + count * VERSION_SIZE
    versions = [stored[place : place + VERSION_SIZE] for place in range(begin, end, VERSION_SIZE)]
    return Envelope(flags, stored[end:], fresh_until, delta, ttl, versions)
