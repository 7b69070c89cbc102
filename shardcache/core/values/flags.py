"""The flags of a payload: what its bytes are. memcached keeps them with the value, Redis in a header."""

from __future__ import annotations

import re
from typing import Final

from shardcache.core.codecs import Json, Msgpack, Pickle, Raw
from shardcache.core.commands import Payload

# pymemcache, python-memcached and pylibmc write and read these flags too, so they hold no bit of
# shardcache's own.
UNMARKED_FLAGS: Final = 0  # `bytes`, never empty: memcached's own stub is empty without flags
INTEGER_FLAGS: Final = 2
TEXT_FLAGS: Final = 16

# All other payloads have a kind, in bits 16 to 23. The low five bits mean something to the other
# clients, and so are 0. pymemcache and pylibmc then return the bytes as they are; python-memcached
# raises, as for all flags that it does not know.
SHIFT: Final = 16

RAW_FLAGS: Final = 1 << SHIFT  # `bytes` too, marked as written by shardcache
TEXT_KIND, INTEGER_KIND = 2, 3  # the kinds of text and whole numbers, where there are no low flags

# Marks, which stand in the place of a value. On Redis and memory nodes every stub has its own
# bytes; memcached's stubs are empty and have no flags.
STUB_FLAGS: Final = 4 << SHIFT
ABANDONED_FLAGS: Final = 5 << SHIFT

# A value with its age (`Envelope`), and an error that is served in place of a value for a moment.
ENVELOPE_FLAGS: Final = 6 << SHIFT
ERROR_FLAGS: Final = 7 << SHIFT

# shardcache's own entries: versions of tags, tokens, claims of refreshes.
MARK_FLAGS: Final = 8 << SHIFT

OWN_CODECS: Final = frozenset({Msgpack, Json, Pickle, Raw})
CODEC_KINDS: Final = range(32, 128)
PLUGIN_KINDS: Final = range(64, 128)  # lower ones are reserved for shardcache's own codecs
JSON_FLAGS: Final = Json.kind << SHIFT

# Added to the kind: a signature stands before the bytes (`Signer`).
SIGNED: Final = 128 << SHIFT

# The mark of a stub begins with this if its process recomputes without the lock that the policy asks for.
UNLOCKED: Final = b"unlocked:"

BARE_STUB: Final[Payload] = (UNMARKED_FLAGS, b"")  # memcached's own, the only one that decodes

# What a Redis value gets that shardcache did not write, and what replaces a payload that must not
# be read. No payload of memcached has these flags.
UNKNOWN_FLAGS: Final = 1 << 32
REFUSED: Final[Payload] = (1 << 33, b"")

# From flags to a kind of one byte and back, including the kinds that memcached marks by low flags.
KIND_OF: Final = {
    **{kind << SHIFT: kind for kind in range(1, 256)},
    UNMARKED_FLAGS: RAW_FLAGS >> SHIFT,
    TEXT_FLAGS: TEXT_KIND,
    INTEGER_FLAGS: INTEGER_KIND,
}
FLAGS_OF: Final = tuple(
    {TEXT_KIND: TEXT_FLAGS, INTEGER_KIND: INTEGER_FLAGS}.get(kind, kind << SHIFT)
    for kind in range(256)
)

BYTES_FLAGS: Final = frozenset({UNMARKED_FLAGS, RAW_FLAGS})
_SCALARS: Final = BYTES_FLAGS | {TEXT_FLAGS, INTEGER_FLAGS}
_MARKS: Final = frozenset({STUB_FLAGS, ABANDONED_FLAGS, ERROR_FLAGS, ERROR_FLAGS | SIGNED})

# CPython can be set to refuse integers of more digits than this, but not of fewer. Larger ones go
# through the codec.
MAX_DIGITS: Final = 640

is_decimal = re.compile(rb"0|-?[1-9][0-9]{0,639}").fullmatch


def is_value(flags: int) -> bool:
    """Return whether these are the flags of a value that shardcache wrote, without an envelope.

    Envelopes and stored errors hold such a value, never one that another client wrote.
    """
    return flags in _SCALARS or (flags >> SHIFT in CODEC_KINDS and not flags & ((1 << SHIFT) - 1))


def is_from_another_client(flags: int) -> bool:
    """Return whether other clients may have written a payload with these flags."""
    return not 0 < flags >> SHIFT < UNKNOWN_FLAGS >> SHIFT


def stub(mark: bytes) -> Payload:
    """Return the stub of a recompute; `mark` identifies the process that recomputes."""
    return STUB_FLAGS, mark


def abandoned(mark: bytes) -> Payload:
    """Return the mark of an abandoned recompute; `mark` identifies the process that gave up."""
    return ABANDONED_FLAGS, mark


def is_stub(payload: Payload) -> bool:
    """Return whether this is the stub of a recompute, not a value."""
    return payload[0] == STUB_FLAGS or payload == BARE_STUB


def is_unlocked(payload: Payload | None) -> bool:
    """Return whether this is the stub of a process that could get no lock, and says so."""
    return payload is not None and payload[0] == STUB_FLAGS and payload[1].startswith(UNLOCKED)


def is_abandoned(payload: object) -> bool:
    """Return whether this is the mark of an abandoned recompute."""
    return isinstance(payload, tuple) and payload[0] == ABANDONED_FLAGS


def is_mark(payload: Payload) -> bool:
    """Return whether this is not a value but the mark of a running, abandoned or failed recompute."""
    return payload[0] in _MARKS or (not payload[1] and payload == BARE_STUB)
