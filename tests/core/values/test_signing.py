"""A signature is valid for its bytes, key, purpose and time alone."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.codecs import Json, Msgpack, Pickle
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import (
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    INTEGER_FLAGS,
    MARK_FLAGS,
    RAW_FLAGS,
    SHIFT,
    SIGNED,
    TEXT_FLAGS,
    abandoned,
    stub,
)
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import Payloads, SignedPayloads, payloads_of
from shardcache.core.values.signing import DIGEST_SIZE, LEEWAY, MIN_SECRET, Scope, Signer
from shardcache.errors import ConfigurationError, DecodeError

NAME = b"4:shop:k"
SECRET, OTHER = b"s" * MIN_SECRET, b"o" * MIN_SECRET
SCOPE = Scope(b"value", 32, "msgpack", NAME)
NOW = 1_700_000_000.0

SCOPES = st.builds(
    Scope,
    st.sampled_from([b"value", b"tag"]),
    st.integers(0, 255),
    st.text("1:,a", max_size=4),
    st.binary(max_size=4) | st.sampled_from([b"1:a", b"1,1:a"]),
)


def signed_by(codec, secrets=(SECRET,), now=NOW):
    """Return the payloads of a client with secrets."""
    return SignedPayloads(codec, secrets, lambda: now)


@given(SCOPES, st.binary(), st.none() | st.floats(0, 2 * NOW))
def test_what_was_signed_comes_back(scope, data, ends):
    """As long as it has not ended."""
    signer = Signer([SECRET])
    assert signer.verify(scope, signer.sign(scope, data, ends), 0.0) == data


@given(SCOPES, SCOPES, st.binary(max_size=4))
def test_a_signature_is_for_one_scope(one, other, data):
    """However the parts of two scopes could run into each other."""
    signer = Signer([SECRET])
    stored = signer.sign(one, data, None)
    if one == other:
        assert signer.verify(other, stored, 0.0) == data
    else:
        with pytest.raises(DecodeError, match="does not match"):
            signer.verify(other, stored, 0.0)


@given(st.binary(max_size=8), st.data())
def test_no_bit_can_be_altered(data, draw):
    """Of the signature, the end or the bytes; nor can bytes be cut off or added."""
    signer = Signer([SECRET])
    stored = signer.sign(SCOPE, data, NOW)
    place = draw.draw(st.integers(0, 8 * len(stored) - 1))
    altered = bytearray(stored)
    altered[place // 8] ^= 1 << place % 8
    for wrong in (bytes(altered), stored[:-1], stored + b"x", b"", stored[:DIGEST_SIZE]):
        with pytest.raises(DecodeError, match="does not match"):
            signer.verify(SCOPE, wrong, 0.0)


def test_secrets_are_changed_one_client_at_a_time():
    """The first of them signs, and any of them is accepted."""
    old, both, new = Signer([OTHER]), Signer([SECRET, OTHER]), Signer([SECRET])
    assert both.verify(SCOPE, old.sign(SCOPE, b"x", None), NOW) == b"x"
    assert new.verify(SCOPE, both.sign(SCOPE, b"x", None), NOW) == b"x"
    with pytest.raises(DecodeError, match="made with another secret"):
        old.verify(SCOPE, both.sign(SCOPE, b"x", None), NOW)


def test_a_signature_ends_soon_after_its_value():
    """A server that counts whole seconds may keep the value for a moment more."""
    signer = Signer([SECRET])
    stored = signer.sign(SCOPE, b"x", NOW)
    assert signer.verify(SCOPE, stored, NOW + LEEWAY) == b"x"
    with pytest.raises(DecodeError, match="has expired"):
        signer.verify(SCOPE, stored, NOW + LEEWAY + 0.001)
    assert signer.verify(SCOPE, signer.sign(SCOPE, b"x", None), math.inf) == b"x"


def test_short_secrets_are_refused():
    """Each of several; the error quotes none."""
    for secrets in ([SECRET[:-1]], [SECRET, b"hunter2"], [b""]):
        with pytest.raises(ConfigurationError, match="must have at least 16 bytes") as caught:
            Signer(secrets)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["text", b"bytes", b"", None, [1, "a"], 10**700])
def test_every_value_is_signed(value):
    """Whatever its kind, it comes back under its own key only."""
    payloads = signed_by(Msgpack())
    stored = payloads.encode(NAME, value)
    assert stored[0] & SIGNED
    assert payloads.decode(NAME, stored) == value
    assert payloads.decoder()(NAME, stored) == value
    with pytest.raises(DecodeError, match="for another key"):
        payloads.decode(b"4:shop:l", stored)
    with pytest.raises(DecodeError, match="does not match"):
        payloads.decode(NAME, (stored[0] ^ (1 << 16), stored[1]))
    with pytest.raises(DecodeError):
        Payloads(Msgpack()).decode(NAME, stored)


def test_whole_numbers_are_not_signed():
    """Servers count with them."""
    payloads = signed_by(Msgpack())
    assert payloads.encode(NAME, 7, 60.0) == (INTEGER_FLAGS, b"7")
    assert payloads.decode(NAME, (INTEGER_FLAGS, b"7")) == 7


def test_a_value_cannot_be_kept_beyond_its_life():
    """A server that plants an old value is not believed."""
    stored = signed_by(Msgpack()).encode(NAME, "text", 60.0)
    assert signed_by(Msgpack(), now=NOW + 60.0 + LEEWAY).decode(NAME, stored) == "text"
    with pytest.raises(DecodeError, match="expired"):
        signed_by(Msgpack(), now=NOW + 61.1).decode(NAME, stored)
    forever = signed_by(Msgpack()).encode(NAME, "text")
    assert signed_by(Msgpack(), now=NOW * 10).decode(NAME, forever) == "text"


def test_an_envelope_may_outlive_its_signature():
    """It is kept while its value is recomputed; errors and marks are not."""
    payloads, late = signed_by(Msgpack()), signed_by(Msgpack(), now=NOW + 100.0)
    envelope = (ENVELOPE_FLAGS, pack(Envelope(TEXT_FLAGS, b"text", NOW, 0.0, 60.0)))
    assert late.open(NAME, payloads.seal(NAME, envelope, 60.0)) == envelope
    for flags in (ERROR_FLAGS, MARK_FLAGS, TEXT_FLAGS):
        sealed = payloads.seal(NAME, (flags, b"x"), 60.0)
        assert payloads.open(NAME, sealed) == (flags, b"x")
        with pytest.raises(DecodeError, match="expired"):
            late.open(NAME, sealed)


def test_marks_of_recomputes_need_no_signature():
    """A node leaves them itself; anything else that is not signed is refused."""
    payloads = signed_by(Msgpack())
    for mark in (stub(b"m"), abandoned(b"m"), (0, b"")):
        assert payloads.open(NAME, mark) == mark
    for unsigned in ((RAW_FLAGS, b""), (MARK_FLAGS, b"x"), (16, b"x"), (ERROR_FLAGS, b"x")):
        with pytest.raises(DecodeError, match="not signed"):
            payloads.open(NAME, unsigned)


def test_a_codec_reads_only_what_it_signed():
    """Plain text is signed by no codec, and read by any; an envelope is a codec's."""
    one, other = signed_by(Msgpack()), signed_by(Pickle())
    assert other.decode(NAME, one.encode(NAME, "text")) == "text"
    assert other.open(NAME, one.seal(NAME, (MARK_FLAGS, b"x"))) == (MARK_FLAGS, b"x")
    for payload in ((ENVELOPE_FLAGS, b""), (ERROR_FLAGS, b""), one.dump(NAME, None)):
        with pytest.raises(DecodeError, match="does not match"):
            other.open(NAME, one.seal(NAME, payload))


def test_a_purpose_is_signed():
    """Bytes signed as one kind are not accepted as another."""
    payloads = signed_by(Msgpack())
    flags, data = payloads.seal(NAME, (MARK_FLAGS, b"x"))
    for kind in (ENVELOPE_FLAGS, ERROR_FLAGS, RAW_FLAGS):
        with pytest.raises(DecodeError, match="does not match"):
            payloads.open(NAME, (flags & ~MARK_FLAGS | kind, data))


@pytest.mark.parametrize(
    ("flags", "kind", "digest"),
    [
        (TEXT_FLAGS, 130, "4809b747c1f6a2dfb0cc3b294c971cf61663f683b06ddb7dc2769e6034db8660"),
        (32 << SHIFT, 160, "04470b407279d628eec961cf7677b4a15870794bd88ddc8fcb22a02e3755806d"),
        (ENVELOPE_FLAGS, 134, "0d3efa40b28de2ad6ca8290221cf7c147b8839accb2d5be1153bfcc61833e0f0"),
        (ERROR_FLAGS, 135, "b1984f84662719f9969f545ac0932c82cbd930b67a33d06972e4c5034f94f863"),
        (MARK_FLAGS, 136, "73f5546d9d7693dabb8ca2869d79992ef8c2413056cdf39ecc465a5c3e4300b7"),
    ],
)
def test_signatures_never_change(flags, kind, digest):
    """Clients of two releases read each other's values: the digest, the end, then the bytes."""
    sealed = signed_by(Msgpack()).seal(NAME, (flags, b"x"), 60.0)
    end = struct.pack("!d", NOW + 60.0)
    assert sealed == (kind << SHIFT, bytes.fromhex(digest) + end + b"x")


def test_without_secrets_nothing_is_signed():
    """And a codec whose bytes run code is refused."""
    plain = payloads_of(Json(), [], lambda: NOW, OtherClients())
    assert type(plain) is Payloads
    assert plain.seal(NAME, (MARK_FLAGS, b"x"), 60.0) == (MARK_FLAGS, b"x")
    assert plain.open(NAME, (MARK_FLAGS, b"x")) == (MARK_FLAGS, b"x")
    signed = payloads_of(Pickle(), [SECRET], lambda: NOW, OtherClients())
    assert signed.decode(NAME, signed.encode(NAME, {1, 2})) == {1, 2}
    assert (signed.signs, plain.signs) == (True, False)
    with pytest.raises(ConfigurationError, match="codec 'pickle' needs a secret"):
        payloads_of(Pickle(), [], lambda: NOW, OtherClients())
