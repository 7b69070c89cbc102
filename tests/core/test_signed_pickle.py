"""Signed pickles: nothing is executed, or even parsed, that one of our secrets did not sign."""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
import traceback
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.codecs import SignedPickle
from shardcache.core.payloads import OWN, Payloads, from_redis, to_redis
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

NAME = b"4:shop:cart"
OLD, NEW = b"o" * 32, "n" * 32


@dataclass(frozen=True)
class Cart:
    """A value that only pickle takes."""

    items: tuple[str, ...]


CART = Cart(("apple", "pear"))


class Planted:
    """A value that runs code when its pickle is read."""

    def __reduce__(self):
        return exec, ("import sys; sys.planted = True",)


@pytest.fixture
def nothing_runs():
    """Fail the test if a planted pickle was executed in it."""
    yield
    assert not hasattr(sys, "planted")


@pytest.fixture
def codec():
    """Give a codec of one secret."""
    return SignedPickle(secret=NEW)


def test_the_plant_works():
    """An executed plant is noticed, so a test in which nothing is noticed proves something."""
    pickle.loads(pickle.dumps(Planted()))
    assert sys.planted
    del sys.planted


def test_values_round_trip(codec):
    """Any picklable value comes back under its own key."""
    assert codec.decode(NAME, codec.encode(NAME, CART)) == CART


def test_every_flipped_bit_is_noticed(codec):
    """No single bit of a stored payload can change unnoticed, the header's included."""
    coded = Payloads(codec)
    stored = to_redis(coded.encode(NAME, CART))
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            coded.decode(NAME, from_redis(bytes(damaged)))


def test_every_flipped_flag_is_noticed(codec):
    """Nor can memcached's flags change unnoticed in one of their 32 bits."""
    coded = Payloads(codec)
    flags, data = coded.encode(NAME, CART)
    for bit in range(32):
        with pytest.raises(DecodeError):
            coded.decode(NAME, (flags ^ 1 << bit, data))


def test_every_length_but_its_own_is_noticed(codec):
    """Cut short anywhere, or prolonged, a payload is refused."""
    data = codec.encode(NAME, CART)
    for damaged in (*(data[:length] for length in range(len(data))), data + b"."):
        with pytest.raises(DecodeError):
            codec.decode(NAME, damaged)


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_a_payload_is_good_for_its_key_alone(one, other):
    """A payload moved to another key is refused, however the keys are alike."""
    codec = SignedPickle(secret=NEW)
    data = codec.encode(one, CART)
    if one != other:
        with pytest.raises(DecodeError, match="signature"):
            codec.decode(other, data)
    # Nor can bytes move between the key and the pickle.
    signature, pickled = data[:32], data[32:]
    with pytest.raises(DecodeError, match="signature"):
        codec.decode(one[:-1], signature + one[-1:] + pickled)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_planted_pickles_never_run(codec, protocol):
    """A forged pickle is refused under every flag and in front of or behind anything."""
    planted = pickle.dumps(Planted(), protocol)
    signature = codec.encode(NAME, CART)[:32]
    for data in (planted, signature + planted, bytes(32) + planted, zlib.compress(planted)):
        for flags in (*range(64), *range(OWN, OWN + 64), 2**31 + 1):
            with contextlib.suppress(DecodeError):
                Payloads(codec).decode(NAME, (flags, data))


@pytest.mark.usefixtures("nothing_runs")
def test_another_secret_is_refused():
    """What somebody else signed is not read."""
    data = SignedPickle(secret=OLD).encode(NAME, Planted())
    with pytest.raises(DecodeError, match="signature"):
        SignedPickle(secret=NEW).decode(NAME, data)


def test_secrets_rotate():
    """The first secret signs; what any of them signed is read."""
    both = SignedPickle(secret=[NEW, OLD])
    assert both.decode(NAME, SignedPickle(secret=OLD).encode(NAME, CART)) == CART
    assert SignedPickle(secret=NEW).decode(NAME, both.encode(NAME, CART)) == CART


def test_the_signature_is_hmac_sha256():
    """The construction is fixed, so that releases read one another's values."""
    codec = SignedPickle(secret=b"k" * 16)
    data = codec.encode(b"name", None)
    assert data[32:] == pickle.dumps(None, 5)
    assert data[:32].hex() == SIGNATURE


# Computed apart: HMAC-SHA256 with key "k" * 16 over "pickle:", the key's length in 8 bytes,
# "name", and the pickle of None.
SIGNATURE = "b4b4646b85c6d539980d1f19b4efd77cc842a43770b98f6ef29e9c604118b340"


@pytest.mark.parametrize("foreign", [pickle.dumps(CART, 2), zlib.compress(pickle.dumps(CART, 5))])
def test_unsigned_pickles_are_read_only_when_told(foreign):
    """Another client's pickles need an explicit yes."""
    flags = 1 if foreign.startswith(b"\x80") else 9
    for refusing in ("false", "no", "0", False):
        codec = SignedPickle(secret=NEW, read_unsigned=refusing)
        with pytest.raises(DecodeError, match="read_unsigned"):
            Payloads(codec).decode(NAME, (flags, foreign))
    for reading in ("true", "Yes", "1", True):
        codec = SignedPickle(secret=NEW, read_unsigned=reading)
        assert Payloads(codec).decode(NAME, (flags, foreign)) == CART


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80\x05", b"garbage", b"cnowhere\nNothing\n.", b"\x80\x05]" + b"]" * 10, b"R."],
)
def test_unreadable_pickles_are_decode_errors(pickled):
    """Whatever reading raises, the caller sees a `DecodeError` without the bytes."""
    codec = SignedPickle(secret=NEW, read_unsigned=True)
    with pytest.raises(DecodeError) as caught:
        codec.decode_foreign_pickle(pickled)
    assert caught.value.__context__ is None


def test_unpicklable_values_are_encode_errors(codec):
    """A value that cannot be pickled is named by its type."""
    with pytest.raises(EncodeError, match="generator"):
        codec.encode(NAME, (item for item in ()))


@pytest.mark.parametrize("secret", [None, "", "short", [], ["n" * 16, "short"], [b"n" * 16, 5], 7])
def test_a_secret_is_required_and_long(secret):
    """Without a good secret there is no codec, and the error names what is missing, not what is."""
    with pytest.raises(ConfigurationError, match="secret") as caught:
        SignedPickle(secret=secret)
    assert "short" not in str(caught.value)


def test_faults_are_listed_together():
    """Every bad option is named at once."""
    with pytest.raises(ConfigurationError) as caught:
        SignedPickle(read_unsigned="maybe", level="9")
    assert len(caught.value.faults) == 3


def test_secrets_are_never_shown():
    """No repr, and no error with its whole traceback, holds the secret."""
    codec = SignedPickle(secret=["hunter2-hunter2-hunter2", b"hunter3-hunter3-hunter3"])
    shown = [repr(codec), str(codec), repr(vars(codec))]
    for failing in (lambda: codec.decode(NAME, b"x"), lambda: codec.encode(NAME, lambda: 0)):
        try:
            failing()
        except (DecodeError, EncodeError):
            shown.append(traceback.format_exc())
    assert len(shown) == 5
    assert not re.search("hunter", "".join(shown))
