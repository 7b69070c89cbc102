"""Stored bytes have a kind: exact for us, readable for others, never trusted."""

from __future__ import annotations

import contextlib
import enum
import sys
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache.backends.redis.header import from_redis, to_redis
from shardcache.core.codecs import Json, Msgpack, Pickle, Raw
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import (
    CODEC_KINDS,
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    INTEGER_FLAGS,
    MARK_FLAGS,
    PLUGIN_KINDS,
    RAW_FLAGS,
    SHIFT,
    TEXT_FLAGS,
    is_decimal,
    is_stub,
    stub,
)
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import Payloads, SignedPayloads
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

NAME = b"4:shop:k"
CODECS = (Msgpack(), Json(), Raw(), Pickle())
by_every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def payloads_by(codec):
    """Return the payloads of a client of this codec, signed if it insists."""
    if codec.name == "pickle":
        return SignedPayloads(codec, [b"s" * 16], lambda: 1000.0)
    return Payloads(codec)


def reading(**options):
    """Return payloads that read more of other clients."""
    return Payloads(Msgpack(), OtherClients(**options))


utf8 = st.text(alphabet=st.characters(codec="utf-8"))
digits_around_the_limit = st.integers(638, 642).flatmap(
    lambda digits: st.sampled_from([10**digits, 10**digits - 1, -(10**digits), 1 - 10**digits])
)
plain = utf8 | st.binary() | st.integers() | digits_around_the_limit


@given(plain)
@example(2**63)
@example(-1)
@example("")
@example(b"")
@example("12")
def test_plain_values_round_trip(value):
    """Text, bytes and whole numbers come back as what they were, also through Redis."""
    coded = Payloads(Msgpack())
    payload = coded.encode(NAME, value)
    for stored in (payload, from_redis(to_redis(payload))):
        found = coded.decode(NAME, stored)
        assert found == value
        assert type(found) is type(value)
    assert not is_stub(payload)


@given(utf8, st.binary(), st.integers(-(2**70), 2**70))
def test_other_clients_can_read_plain_values(text, data, number):
    """The bytes are the value's own, under the very flags that other clients give them."""
    coded = Payloads(Msgpack())
    assert coded.encode(NAME, text) == (16, text.encode())
    assert coded.encode(NAME, data) == (0 if data else RAW_FLAGS, data)
    assert coded.encode(NAME, number) == (2, str(number).encode())


@given(st.integers())
def test_redis_can_count_whole_numbers(number):
    """A whole number is stored bare, and no other value begins like one."""
    coded = Payloads(Msgpack())
    assert to_redis(coded.encode(NAME, number)) == str(number).encode()


@pytest.mark.parametrize(
    "value", ["12", b"12", 1.5, None, True, [1], {}, "\ud800", 10**640], ids=ascii
)
def test_only_whole_numbers_are_bare(value):
    """No other value is taken for a number by Redis."""
    stored = to_redis(Payloads(Msgpack()).encode(NAME, value))
    assert not stored[:1].isdigit()
    assert not stored.startswith(b"-")


@pytest.mark.parametrize(
    "value",
    [True, False, None, 1.0, "\ud800x", 10**5000, -(10**5000)],
    ids=["true", "false", "none", "float", "surrogate", "huge", "huge-negative"],
)
def test_lookalikes_keep_their_type(value):
    """A bool, and numbers or text beyond plain bytes, go through the codec."""
    coded = Payloads(Msgpack())
    payload = coded.encode(NAME, value)
    assert payload[0] == Msgpack.kind << SHIFT
    found = coded.decode(NAME, payload)
    assert (type(found), found) == (type(value), value)


class Colour(enum.IntEnum):
    """A number with a name."""

    RED = 1


@pytest.mark.parametrize("value", [Colour.RED, type("Text", (str,), {})("x")], ids=["enum", "str"])
def test_subclasses_are_refused_by_name(value):
    """They would come back as another type; the error says what to do."""
    with pytest.raises(EncodeError, match=rf"{type(value).__name__}.*pickle.*secret"):
        Payloads(Msgpack()).encode(NAME, value)


@by_every_codec
@given(st.sampled_from([-1, *range(300), 2**31, 2**32 - 1]) | st.integers(0, 2**32), st.binary())
@example(2, b"1_000")
@example(2, b" 1")
@example(2, b"-0")
@example(2, b"+1")
@example(2, b"\xd9\xa1")  # a digit, in Arabic
@example(2, b"1" * 5000)
@example(9, zlib.compress(b"cos\nsystem\n(S'true'\ntR."))
def test_any_payload_gives_a_value_or_a_decode_error(codec, flags, data):
    """Whatever the bytes and flags; no error keeps the bytes."""
    fault = None
    try:
        payloads_by(codec).decode(NAME, (flags, data))
    except DecodeError as error:
        fault = error
    # A UnicodeDecodeError, as the context, would hold the bytes.
    assert fault is None or not isinstance(fault.__context__, UnicodeError)


@pytest.mark.parametrize("digits", [b"1_000", b" 1", b"-0", b"+1", b"01", b"", b"1.0", b"1\n"])
def test_whole_numbers_have_one_spelling(digits):
    """Digits that Python reads and no server writes are no number."""
    with pytest.raises(DecodeError, match="whole number"):
        Payloads(Msgpack()).decode(NAME, (INTEGER_FLAGS, digits))
    assert from_redis(digits)[0] != INTEGER_FLAGS


def test_a_blank_behind_a_counter_is_ignored():
    """Left by memcached when a counter loses a digit."""
    assert Payloads(Msgpack()).decode(NAME, (INTEGER_FLAGS, b"99 ")) == 99


@given(st.binary())
@example(b"\x80\x05K\x01.")
@example(b"\x81\xa1a\x01")
@example(b"\xc1")
@example(b"")
def test_what_others_left_in_redis_is_no_value(stored):
    """Pickles, JSON and msgpack of other clients are undecodable, not misread."""
    if stored[:1] != b"\xc1" and not is_decimal(stored):
        with pytest.raises(DecodeError):
            Payloads(Msgpack()).decode(NAME, from_redis(stored))


@pytest.mark.parametrize(
    ("flags", "data", "value"),
    [
        (0, b"raw \xff", b"raw \xff"),
        (16, "é".encode(), "é"),
        (2, b"-12", -12),
        (4, b"123456789012345678901234567890", 123456789012345678901234567890),
        (8, zlib.compress(b"raw \xff"), b"raw \xff"),
        (8 | 16, zlib.compress("é".encode()), "é"),
        (8 | 2, zlib.compress(b"7"), 7),
    ],
)
def test_values_of_other_clients_are_read(flags, data, value):
    """The flags of pymemcache, python-memcached and pylibmc keep a cache warm."""
    found = reading(compressed=True).decode(NAME, (flags, data))
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("flags", [3, 5, 6, 17, 18, 32, 64, 128, 0x100, 1 << 31], ids=hex)
def test_unknown_flags_are_refused(flags):
    """A combination that no client writes is not guessed at."""
    with pytest.raises(DecodeError):
        Payloads(Msgpack()).decode(NAME, (flags, b"1"))


def test_compressed_values_are_bounded():
    """A small value that inflates without end is refused before it does."""
    coded = reading(compressed=True)
    coded.others.largest = 10_000
    assert coded.decode(NAME, (8, zlib.compress(bytes(10_000)))) == bytes(10_000)
    for data in (
        zlib.compress(bytes(10_001)),
        zlib.compress(bytes(5_000_000)),
        zlib.compress(b"cut short")[:-1],
        zlib.compress(b"one") + b"more",
        b"no zlib",
        b"",
    ):
        with pytest.raises(DecodeError, match="compressed"):
            coded.decode(NAME, (8, data))


def test_a_stub_is_no_value():
    """Only an empty value without our mark is memcached's stub."""
    assert is_stub((0, b""))
    for payload in ((RAW_FLAGS, b""), (TEXT_FLAGS, b""), (0, b"x"), (16, b"")):
        assert not is_stub(payload)


def test_another_codec_is_not_guessed_at():
    """A codec does not try to read what another wrote."""
    value = [1, None]
    for writer in (Msgpack(), Json(), Pickle()):
        payload = payloads_by(writer).encode(NAME, value)
        for reader in CODECS:
            if reader.name != writer.name:
                with pytest.raises(DecodeError):
                    payloads_by(reader).decode(NAME, payload)


@pytest.mark.parametrize("kind", [0, 2, 16, *range(31, 40), 63, 128, 256, "64", None])
def test_a_codec_has_its_own_kind(kind):
    """A plugin's codec cannot take the kind of plain values, marks or our codecs."""
    with pytest.raises(ConfigurationError, match="kind"):
        Payloads(type("Mine", (Msgpack,), {"kind": kind})())


@pytest.mark.parametrize("kind", [64, 127])
def test_plugins_have_kinds_64_to_127(kind):
    """A codec's values have its kind."""
    coded = Payloads(type("Mine", (Msgpack,), {"kind": kind})())
    assert coded.encode(NAME, None)[0] == kind << SHIFT
    assert coded.decode(NAME, coded.encode(NAME, None)) is None


def test_our_flags_have_no_bit_of_other_clients():
    """To pymemcache, python-memcached and pylibmc the low five bits mean pickle, number, zlib, text."""
    ours = [stub(b"m")[0], RAW_FLAGS, ENVELOPE_FLAGS, ERROR_FLAGS, MARK_FLAGS]
    ours += [kind << SHIFT for kind in CODEC_KINDS]
    for codec in CODECS:
        signed = SignedPayloads(codec, [b"s" * 16], lambda: 0.0)
        ours += [signed.encode(NAME, "text")[0], signed.seal(NAME, (ENVELOPE_FLAGS, b""))[0]]
    assert not any(flags & 31 for flags in ours)
    assert all(flags < 2**32 for flags in ours)
    assert PLUGIN_KINDS.stop == CODEC_KINDS.stop


@pytest.mark.parametrize("flags", [1, 2 | 8, 4, 8, 16 | 8, 3, 1 << 31])
def test_nothing_foreign_is_in_an_envelope(flags):
    """An envelope and what it holds are ours: no pickle and no bomb comes in by one."""
    coded = reading(unsigned=True, compressed=True)
    data = pack(Envelope(flags, b"\x80\x05K\x01.", 0.0, 0.0, 1.0))
    with pytest.raises(DecodeError, match="envelope"):
        coded.decode(NAME, (ENVELOPE_FLAGS, data))


PICKLED = (1, b"\x80\x05K\x01.")  # as pymemcache stores a `True`


@pytest.mark.parametrize(
    ("unsigned", "read"),
    [(False, []), ("plain", ["text", b"bytes", 7]), (True, ["text", b"bytes", 7, 1])],
)
def test_what_is_read_unsigned_beside_signed_values(unsigned, read):
    """With a secret a setting says what is read of other clients: nothing, plain values, pickles too."""
    coded = SignedPayloads(Pickle(), [b"s" * 16], lambda: 0.0, OtherClients(unsigned=unsigned))
    found = []
    for payload in ((TEXT_FLAGS, b"text"), (0, b"bytes"), (4, b"7"), PICKLED):
        with contextlib.suppress(DecodeError):
            found.append(coded.decode(NAME, payload))
    assert found == read


def test_plain_numbers_fit_the_interpreters_digit_limit():
    """Also the lowest limit that CPython can be set to."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        coded = Payloads(Msgpack())
        for value in (10**640 - 1, 10**640, -(10**640) + 1):
            assert coded.decode(NAME, coded.encode(NAME, value)) == value
    finally:
        sys.set_int_max_str_digits(limit)


some_values = st.lists(st.binary(min_size=1)) | st.lists(st.text()) | st.lists(plain | st.text())


@by_every_codec
@given(some_values)
@example(["text", "\ud800"])
@example([b"x", b""])
@example([True])
def test_values_that_are_encoded_together_are_encoded_as_each_is(codec, values):
    """All of one type or not, with what one cannot be under the usual flags."""
    payloads = payloads_by(codec)
    alike = payloads.encode_alike(values)
    if alike is None:
        return
    flags, data = alike
    names = [NAME + b"%d" % place for place in range(len(values))]
    expected = [payloads.encode(*each, 60.0) for each in zip(names, values, strict=True)]
    assert [(flags, each) for each in data] == expected


@by_every_codec
def test_bytes_and_text_are_encoded_together(codec):
    """By codecs that store them as they are."""
    payloads = payloads_by(codec)
    for values in (["a", "b"], [b"a", b"b"]):
        assert (payloads.encode_alike(values) is None) == (not payloads.bytes_flags)
