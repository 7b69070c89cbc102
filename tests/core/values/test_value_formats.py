"""A format of another author sees every value, in every place where values are stored."""

from __future__ import annotations

import zlib
from contextlib import closing

import pytest

from shardcache import ConfigurationError, DecodeError, EncodeError
from shardcache.backends.redis.header import from_redis, to_redis
from shardcache.core.codecs import Msgpack
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import ENVELOPE_FLAGS, INTEGER_FLAGS, SHIFT, TEXT_FLAGS
from shardcache.core.values.formats import CodecFormat
from shardcache.core.values.payloads import Payloads, SignedPayloads
from shardcache.testing.driving import MODES, make_client

NAME = b"4:shop:k"
KIND = 77
VALUES = ["text", "", b"bytes", b"", -7, 10**700, None, {"a": (1, 2)}]


class Compressed:
    """Compresses every value but whole numbers, around the payload of another format."""

    name = "zlib"

    def __init__(self, inner=None):
        self.inner = CodecFormat(Msgpack()) if inner is None else inner

    def encode(self, name, value):
        """Return the inner flags and data, compressed."""
        flags, data = self.inner.encode(name, value)
        if flags == INTEGER_FLAGS:
            return flags, data
        return KIND << SHIFT, zlib.compress(flags.to_bytes(4, "big") + data)

    def decode(self, name, payload):
        """Return the value of its own payloads and of the inner format's."""
        if payload[0] == KIND << SHIFT:
            data = zlib.decompress(payload[1])
            payload = int.from_bytes(data[:4], "big"), data[4:]
        return self.inner.decode(name, payload)


def in_every_way():
    """Return the payloads of the format, plain and signed."""
    return [Payloads(Compressed()), SignedPayloads(Compressed(), [b"s" * 16], lambda: 1000.0)]


@pytest.mark.parametrize("payloads", in_every_way(), ids=["plain", "signed"])
@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_every_value_passes_it(payloads, value):
    """Text, bytes and whole numbers do too, on Redis as on memcached."""
    stored = payloads.encode(NAME, value)
    is_counter = type(value) is int and value < 10**640
    assert payloads.dump(NAME, value)[0] == (INTEGER_FLAGS if is_counter else KIND << SHIFT)
    assert payloads.decode(NAME, stored) == value
    assert payloads.decode(NAME, from_redis(to_redis(stored))) == value


@pytest.mark.parametrize("payloads", in_every_way(), ids=["plain", "signed"])
def test_it_needs_to_know_nothing_of_envelopes(payloads):
    """A value with an age is wrapped after it was encoded, and unwrapped before it is decoded."""
    inner = payloads.dump(NAME, "text")
    outer = payloads.seal(NAME, (ENVELOPE_FLAGS, pack(Envelope(*inner, 0.0, 0.0, 1.0))))
    assert payloads.decode(NAME, outer) == payloads.load(NAME, inner) == "text"


def test_it_reads_what_was_stored_before_it():
    """Formats stack: what it did not write it leaves to the one it wraps."""
    assert Payloads(Compressed()).decode(NAME, (TEXT_FLAGS, b"old")) == "old"
    twice = Payloads(Compressed(Compressed()))
    assert twice.decode(NAME, twice.encode(NAME, [1])) == [1]


def test_a_signature_covers_its_name():
    """What one format signed is not decoded by another of the same kind."""
    stored = SignedPayloads(Compressed(), [b"s" * 16], lambda: 0.0).encode(NAME, "text")
    other = type("Other", (Compressed,), {"name": "other"})()
    with pytest.raises(DecodeError, match="signature"):
        SignedPayloads(other, [b"s" * 16], lambda: 0.0).decode(NAME, stored)


@pytest.mark.parametrize(
    "payload",
    [(5, b""), (4 << SHIFT, b""), (KIND << SHIFT, "text"), ("flags", b""), None],
    ids=repr,
)
def test_what_is_no_payload_of_a_value_is_not_stored(payload):
    """A mark, another client's flags or no bytes at all are refused, and the format is named."""
    faulty = type("Faulty", (Compressed,), {"encode": lambda *_: payload})()
    with pytest.raises(EncodeError, match="codec 'zlib'"):
        Payloads(faulty).encode(NAME, "text")


def test_what_it_raises_is_an_error_of_a_codec():
    """Whatever a format raises, callers see the errors of a codec, with that as the cause."""
    payloads = Payloads(Compressed())
    with pytest.raises(DecodeError, match="codec 'zlib' raised error") as caught:
        payloads.decode(NAME, (KIND << SHIFT, b"not zlib's"))
    assert isinstance(caught.value.__cause__, zlib.error)
    with pytest.raises(EncodeError, match="codec 'msgpack' cannot store object"):
        payloads.encode(NAME, object())


@pytest.mark.parametrize("mode", MODES)
def test_a_client_takes_it_in_place_of_a_codec(mode):
    """Single keys, batches, counters and cached values all go through it."""
    with closing(make_client(mode, "memory://a,b", codec=Compressed())) as client:
        client.set_many({str(place): value for place, value in enumerate(VALUES)})
        found = client.get_many(list(map(str, range(len(VALUES)))))
        assert [found[str(place)] for place in range(len(VALUES))] == VALUES
        assert client.get("0") == "text"
        assert client.incr("hits", initial=5) == 5
        assert client.incr("hits") == 6
        for _ in range(2):
            assert client.get_or_set("cached", lambda: "text", ttl=60, stale=60) == "text"


def test_one_that_needs_a_secret_says_so():
    """A format whose decoding runs code is refused without signatures, as a codec is."""
    dangerous = type("Dangerous", (Compressed,), {"signed_only": True})()
    with pytest.raises(ConfigurationError, match="codec 'zlib' needs a secret"):
        Payloads(dangerous)
    assert SignedPayloads(dangerous, [b"s" * 16], lambda: 0.0).signs
