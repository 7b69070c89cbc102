"""The envelope around a stored value: until when it is fresh, and the versions of its tags."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardcache.errors import DecodeError

# The format, the value's flags, `fresh_until`, `delta`, `ttl`, and how many versions follow.
_HEADER: Final = struct.Struct("!BIdddB")
FORM: Final = 1
VERSION_SIZE: Final = 8  # bytes of each version of a tag
MAX_VERSIONS: Final = 255


class Envelope(NamedTuple):
    """A payload with what decides whether it is served.

    `fresh_until` is a time of day in seconds, which all machines share. `delta` is how many seconds
    the recompute took. `ttl` is for how many seconds the value was fresh at first. `fresh_until` and
    `ttl` may be infinite. `versions` are those of its tags, in order, when the recompute began.
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
    """Return the envelope in these bytes; raise `DecodeError` if they hold none."""
    try:
        form, flags, fresh_until, delta, ttl, count = _HEADER.unpack_from(stored)
    except struct.error:
        form = None
    begin = _HEADER.size
    if form != FORM or len(stored) < begin + count * VERSION_SIZE:
        raise DecodeError("marked as an envelope, but not one")
    end = begin + count * VERSION_SIZE
    versions = [stored[place : place + VERSION_SIZE] for place in range(begin, end, VERSION_SIZE)]
    return Envelope(flags, stored[end:], fresh_until, delta, ttl, versions)
