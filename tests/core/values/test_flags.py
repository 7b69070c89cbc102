"""The flags of a payload say what its bytes are, and nothing is taken for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.codecs import Json, Msgpack, Pickle, Raw
from shardcache.core.values.flags import (
    ABANDONED_FLAGS,
    BARE_STUB,
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    FLAGS_OF,
    INTEGER_FLAGS,
    KIND_OF,
    MARK_FLAGS,
    RAW_FLAGS,
    REFUSED,
    SHIFT,
    SIGNED,
    STUB_FLAGS,
    TEXT_FLAGS,
    UNKNOWN_FLAGS,
    UNLOCKED,
    UNMARKED_FLAGS,
    abandoned,
    is_abandoned,
    is_from_another_client,
    is_mark,
    is_stub,
    is_unlocked,
    is_value,
    stub,
)

PLAIN = [UNMARKED_FLAGS, RAW_FLAGS, TEXT_FLAGS, INTEGER_FLAGS]
OF_CODECS = [codec.kind << SHIFT for codec in (Msgpack, Json, Pickle, Raw)]
OWN = [STUB_FLAGS, ABANDONED_FLAGS, ENVELOPE_FLAGS, ERROR_FLAGS, MARK_FLAGS]


def test_flags_never_change():
    """They are stored, and clients of two releases read each other's values."""
    assert (UNMARKED_FLAGS, INTEGER_FLAGS, TEXT_FLAGS) == (0, 2, 16)
    assert [flags >> 16 for flags in (RAW_FLAGS, *OWN)] == [1, 4, 5, 6, 7, 8]
    assert [flags / 2**16 for flags in OF_CODECS] == [32, 33, 34, 35]
    assert SIGNED == 2**23
    assert [KIND_OF[flags] for flags in (*PLAIN, *OWN)] == [1, 1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        (stub(b"m"), {"stub", "mark"}),
        (stub(UNLOCKED + b"m"), {"stub", "mark", "unlocked"}),
        (BARE_STUB, {"stub", "mark"}),
        (abandoned(b"m"), {"abandoned", "mark"}),
        ((ERROR_FLAGS, b""), {"mark"}),
        ((ERROR_FLAGS | SIGNED, b""), {"mark"}),
        ((ENVELOPE_FLAGS, b""), set()),
        ((MARK_FLAGS, b""), set()),
        ((RAW_FLAGS, b""), set()),
        ((RAW_FLAGS, UNLOCKED), set()),
        ((UNMARKED_FLAGS, b"x"), set()),
    ],
)
def test_a_mark_stands_in_the_place_of_a_value(payload, kinds):
    """A stub, an abandoned recompute or a kept error; the stub of memcached is empty."""
    assert is_stub(payload) is ("stub" in kinds)
    assert is_unlocked(payload) is ("unlocked" in kinds)
    assert is_abandoned(payload) is ("abandoned" in kinds)
    assert is_mark(payload) is ("mark" in kinds)


def test_what_is_no_payload_is_no_mark():
    """A reply may be an error, or nothing."""
    assert not is_unlocked(None)
    assert not is_abandoned(None)
    assert not is_abandoned(ValueError())


def test_values_are_plain_or_of_a_codec():
    """Neither marks nor envelopes, nor what other clients wrote compressed or pickled."""
    assert all(map(is_value, [*PLAIN, *OF_CODECS, 127 << SHIFT]))
    assert not any(map(is_value, [*OWN, 1, 8, UNKNOWN_FLAGS, REFUSED[0], 128 << SHIFT]))
    assert not any(is_value(flags | 1) for flags in OF_CODECS)


def test_only_low_flags_may_be_of_another_client():
    """And what Redis holds without shardcache's header."""
    assert all(map(is_from_another_client, [*range(32), UNKNOWN_FLAGS]))
    ours = [RAW_FLAGS, *OWN, *OF_CODECS]
    assert not any(map(is_from_another_client, [*ours, *(each | SIGNED for each in ours)]))


@given(st.integers(0, 255))
def test_a_kind_has_flags_and_they_have_that_kind(kind):
    """One byte is enough for all flags that shardcache writes."""
    assert FLAGS_OF[kind] == 0 if kind == 0 else KIND_OF[FLAGS_OF[kind]] == kind


def test_bytes_without_a_mark_have_the_kind_of_marked_ones():
    """A signature marks them anyway."""
    assert KIND_OF[UNMARKED_FLAGS] == KIND_OF[RAW_FLAGS]
    assert [FLAGS_OF[KIND_OF[flags]] for flags in PLAIN] == [RAW_FLAGS, *PLAIN[1:]]
