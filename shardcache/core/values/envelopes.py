"""The envelope around a stored value: until when it is fresh, and the versions of its tags."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from shardcache.errors import DecodeError

# The format, the value's flags, `fresh_until`, `delta`, `ttl`, and how many versions follow.
_HEADER: Final = struct.Struct("!BIdddB")
FORM: Final = 1
FORM_WITH_TAGS: Final = (
    2  # between versions and value: the number of tags, and each with its length
)
_COUNT: Final = struct.Struct("!B")
_LENGTH: Final = struct.Struct("!I")
VERSION_SIZE: Final = 8  # bytes of each version of a tag
MAX_VERSIONS: Final = 255


class Envelope(NamedTuple):
    """A payload with what decides whether it is served.

    `fresh_until` is a time of day in seconds, which all machines share. `delta` is how many seconds
    the recompute took. `ttl` is for how many seconds the value was fresh at first. `fresh_until` and
    `ttl` may be infinite. `versions` are those of its tags, in order. `tags` are the last of these
    tags, which depend on the value; `None` if its tags depend on the arguments alone.
    """

    flags: int
    data: bytes
    fresh_until: float
    delta: float
    ttl: float
    versions: Sequence[bytes] = ()
    tags: Sequence[bytes] | None = None


def pack(envelope: Envelope) -> bytes:
    """Return the bytes of an envelope."""
    tags = envelope.tags
    header = _HEADER.pack(
        FORM if tags is None else FORM_WITH_TAGS,
        envelope.flags,
        envelope.fresh_until,
        envelope.delta,
        envelope.ttl,
        len(envelope.versions),
    )
    return b"".join((header, *envelope.versions, *_pack_tags(tags), envelope.data))


def unpack(stored: bytes) -> Envelope:
    """Return the envelope in these bytes; raise `DecodeError` if they hold none."""
    try:
        form, flags, fresh_until, delta, ttl, count = _HEADER.unpack_from(stored)
    except struct.error:
        form = None
    begin = _HEADER.size
    if form not in {FORM, FORM_WITH_TAGS} or len(stored) < begin + count * VERSION_SIZE:
        raise DecodeError("marked as an envelope, but not one")
    end = begin + count * VERSION_SIZE
    versions = [stored[place : place + VERSION_SIZE] for place in range(begin, end, VERSION_SIZE)]
    if form == FORM:
        return Envelope(flags, stored[end:], fresh_until, delta, ttl, versions)
    tags, end = _unpack_tags(stored, end)
    return Envelope(flags, stored[end:], fresh_until, delta, ttl, versions, tags)


def _pack_tags(tags: Sequence[bytes] | None) -> Iterator[bytes]:
    if tags is not None:
        yield _COUNT.pack(len(tags))
        for tag in tags:
            yield _LENGTH.pack(len(tag))
            yield tag


def _unpack_tags(stored: bytes, place: int) -> tuple[list[bytes], int]:
    """Return the tags from `place` on, and where they end; raise `DecodeError` if they are cut."""
    tags = []
    try:
        (count,) = _COUNT.unpack_from(stored, place)
        place += _COUNT.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(stored, place)
            place += _LENGTH.size + length
            tags.append(stored[place - length : place])
            if not length:  # no tag has an empty name
                raise DecodeError("an envelope with an empty tag")
    except struct.error:
        place = len(stored) + 1
    if place > len(stored):
        raise DecodeError("marked as an envelope with tags, but not one")
    return tags, place
