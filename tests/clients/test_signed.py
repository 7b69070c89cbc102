"""With a secret a client believes only what was signed for this key and purpose, and until its end."""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
import zlib

import pytest

from clients.signing import CODECS, NEW, OLD, VALUES, Node, cached
from shardcache import ConfigurationError, DecodeError
from shardcache.core.codecs import Msgpack, Pickle
from shardcache.core.keys import KeySpace
from shardcache.core.values.envelopes import Envelope, pack, unpack
from shardcache.core.values.flags import (
    ABANDONED_FLAGS,
    CODEC_KINDS,
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    INTEGER_FLAGS,
    MARK_FLAGS,
    SHIFT,
    SIGNED,
    STUB_FLAGS,
)
from shardcache.testing.driving import make_client

EVERY_FLAG = [kind << SHIFT for kind in range(256)]


class Planted:
    """A value that runs code when its pickle is read."""

    def __reduce__(self):
        return exec, ("import sys; sys.planted = True",)


@pytest.fixture
def nothing_runs():
    """Fail the test if a planted pickle was executed in it."""
    yield
    assert not hasattr(sys, "planted")


def test_the_plant_works():
    """An executed pickle is noticed, so a test in which none is noticed proves something."""
    pickle.loads(pickle.dumps(Planted()))
    assert sys.planted
    del sys.planted


@pytest.mark.parametrize("codec", CODECS)
def test_values_of_every_codec_are_signed(make_signed, codec):
    """Scalars as well; a whole number is plain, so that servers count it."""
    client = make_signed(codec=codec)
    node = Node(client)
    text = b"text" if codec == "raw" else "text"
    values = {"value": VALUES[codec], "text": text, "empty": b"" if codec == "raw" else ""}
    for key, value in values.items():
        assert client.set(key, value, ttl=60)
        assert node.held(key.encode())[0] & SIGNED
    assert client.get_many(values) == values
    assert {key: client.get(key) for key in values} == values
    assert client.gets("value")[0] == VALUES[codec]
    client.set("n", 7)
    assert node.held(b"n") == (INTEGER_FLAGS, b"7")
    assert client.incr("n") == 8
    assert client.get("n") == (b"8" if codec == "raw" else 8)


def forgeries(codec):
    """Return payloads that an attacker without the secret can write: of this codec, text, bytes."""
    data = {
        "msgpack": Msgpack().encode(b"k", {"admin": True}),
        "json": b'{"admin": true}',
        "raw": b"admin",
        "pickle": pickle.dumps({"admin": True}),
    }[codec]
    kinds = {"msgpack": 32, "json": 33, "raw": 35, "pickle": 34}
    inner = kinds[codec] << SHIFT
    envelope = pack(Envelope(inner, data, time.time() + 60, 0.0, 60.0))
    return [
        (inner, data),
        (inner | SIGNED, bytes(40) + data),
        (ENVELOPE_FLAGS, envelope),
        (ENVELOPE_FLAGS | SIGNED, bytes(40) + envelope),
        (0, b"admin"),
        (1 << SHIFT, b"admin"),
        (16, b"admin"),
        (16, b'"admin"'),
        # Some codecs would read these, though they are no whole numbers.
        (INTEGER_FLAGS, b'{"admin": true}'),
        (INTEGER_FLAGS, b"1.5"),
        (INTEGER_FLAGS, b"007"),
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_an_unsigned_value_is_a_miss(make_signed, codec):
    """Planted values, text, bytes and envelopes are counted misses, in `get` and in `get_many`."""
    client = make_signed(codec=codec)
    node, forged = Node(client), forgeries(codec)
    for payload in forged:
        node.plant(b"k", payload)
        assert client.get("k", "miss") == "miss"
        assert client.get_many(["k"]) == {}
        assert client.gets("k", "miss") == ("miss", None)
    (figures,) = client.counters().values()
    assert figures["decode_failures"] == 3 * len(forged)
    assert figures["misses"] == 3 * len(forged)


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_an_unsigned_value_is_recomputed(make_signed, codec):
    """A cached function stores its own value over it, over a number too."""
    calls = []

    def compute():
        calls.append(1)
        return VALUES[codec]

    for options in ({}, {"stale": 30}, {"tags": ["t"]}):
        client = make_signed(codec=codec)
        node = Node(client)
        call, key = cached(client, compute, ttl=60, **options)
        for payload in (*forgeries(codec), (INTEGER_FLAGS, b"7")):
            node.plant(key, payload)
            del calls[:]
            assert [call(), call()] == [VALUES[codec]] * 2
            assert calls == [1]


@pytest.mark.parametrize("codec", CODECS)
def test_a_value_is_good_for_its_key_alone(make_signed, codec):
    """Under another key, in another namespace, or with another program's secret it is a miss."""
    client = make_signed(codec=codec, namespace="shop")
    client.set("k", VALUES[codec])
    payload = Node(client).held(b"k")
    readers = [
        (client, b"other"),
        (make_signed(codec=codec, namespace="shops"), b"k"),
        (make_signed(codec=codec), b"k"),
        (make_signed(codec=codec, namespace="shop", secret=OLD), b"k"),
    ]
    for reader, key in readers:
        Node(reader).plant(key, payload)
        assert reader.get(key, "miss") == "miss"
    assert KeySpace("shop").canonical(b"k") != KeySpace("shops").canonical(b"k")


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_a_signature_is_good_for_its_kind_alone(make_signed, codec):
    """No value becomes an error, an envelope or a tag's version, nor the reverse."""
    client = make_signed(codec=codec)
    node = Node(client)
    client.set("k", VALUES[codec])
    payloads = client._cluster.payloads
    held = {
        "value": node.held(b"k"),
        "error": payloads.seal(b"k", (ERROR_FLAGS, b"stored")),
        "envelope": payloads.seal(b"k", (ENVELOPE_FLAGS, b"stored")),
        "tag": payloads.seal(b"k", (MARK_FLAGS, b"version1")),
    }
    for flags, data in held.values():
        for kind in EVERY_FLAG:
            for other in {kind, kind | SIGNED, kind | 1, kind | SIGNED | 16, kind << 8} - {flags}:
                if other in {STUB_FLAGS, ABANDONED_FLAGS}:
                    continue  # these say of a key that it has no value
                with pytest.raises(DecodeError):
                    payloads.open(b"k", (other, data))


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
def test_a_signature_is_good_for_its_codec_alone(make_signed, codec):
    """Clients of several codecs may share one secret."""
    client = make_signed(codec=codec)
    client.set("k", VALUES[codec])
    flags, data = Node(client).held(b"k")
    for other in set(CODECS) - {codec}:
        reader = make_signed(codec=other)
        for kind in (flags, *(kind << SHIFT | SIGNED for kind in CODEC_KINDS)):
            Node(reader).plant(b"k", (kind, data))
            # Bytes are bytes to every codec but `json`, whoever stored them.
            assert reader.get("k", "miss") in (
                ("miss",) if codec != "raw" or other == "json" else ("miss", b"bytes")
            )


def test_every_flipped_bit_is_noticed(make_signed):
    """No bit of a value, of its flags or of its life can change unnoticed."""
    client = make_signed()
    client.set("k", ["value"], ttl=60)
    payloads = client._cluster.payloads
    flags, data = Node(client).held(b"k")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            payloads.decode(b"k", (flags, bytes(damaged)))
    for bit in range(32):
        with pytest.raises(DecodeError):
            payloads.decode(b"k", (flags ^ 1 << bit, data))
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            payloads.decode(b"k", (flags, data[:length]))


class DeniedError(Exception):
    """An error of the application that is kept."""


@pytest.mark.slow
def test_a_stored_error_is_never_a_value(make_signed):
    """Under no flags, and no value is an error."""
    client = make_signed()
    node, calls = Node(client), []

    def check():
        calls.append(1)
        raise DeniedError("no")

    def ask():
        with pytest.raises(DeniedError):
            client.get_or_set("k", check, ttl=60, cache_errors=(DeniedError,), error_ttl=60)
        return len(calls)

    assert [ask(), ask()] == [1, 1]
    flags, data = node.held(b"k")
    assert flags == ERROR_FLAGS | SIGNED
    assert client.get("k", "miss") == "miss"
    for kind in (*EVERY_FLAG, 0, 2, 16):
        signed = kind | SIGNED if kind >> SHIFT else kind
        for other in {kind, signed} - {STUB_FLAGS, ABANDONED_FLAGS}:
            node.plant(b"k", (other, data))
            assert client.get("k", "miss") == "miss"
    client.set("k", ["value"], ttl=60)
    flags, data = node.held(b"k")
    node.plant(b"k", (ERROR_FLAGS | SIGNED, data))
    assert ask() == 2


def test_an_unsigned_error_is_not_raised(make_signed):
    """An attacker who can write cannot make a cached function refuse every caller."""
    client = make_signed()
    described = Msgpack().encode(b"k", (f"{DeniedError.__module__}:DeniedError", ["no"]))
    stored = (32 << SHIFT).to_bytes(4, "big") + bytes(16) + described
    Node(client).plant(b"k", (ERROR_FLAGS, stored))
    options = {"cache_errors": (DeniedError,), "error_ttl": 60}
    assert client.get_or_set("k", lambda: "granted", ttl=60, **options) == "granted"


def test_a_value_cannot_be_taken_out_of_its_envelope(make_signed):
    """It has no signature of its own."""
    client = make_signed()
    node = Node(client)
    assert client.get_or_set("k", lambda: ["value"], ttl=60, stale=60) == ["value"]
    flags, data = node.held(b"k")
    assert flags == ENVELOPE_FLAGS | SIGNED
    envelope = unpack(data[40:])
    for payload in (
        (envelope.flags, envelope.data),
        (envelope.flags | SIGNED, envelope.data),
        (envelope.flags | SIGNED, data[:40] + envelope.data),
        (ENVELOPE_FLAGS, data[40:]),
    ):
        node.plant(b"k", payload)
        assert client.get("k", "miss") == "miss"
    node.plant(b"k", (flags, data))
    assert client.get("k") == ["value"]


def test_a_value_of_an_invalidated_tag_does_not_come_back(make_signed):
    """Its envelope has the old version; an unsigned version is none."""
    client = make_signed()
    node, calls = Node(client), []

    def compute():
        calls.append(1)
        return len(calls)

    load, key = cached(client, compute, ttl=60, tags=["t"])
    assert [load(), load()] == [1, 1]
    old = node.held(key)
    client.invalidate_tag("t")
    node.plant(key, old)
    assert [load(), load()] == [2, 2]
    client.invalidate_tag("t")
    node.plant(key, old)
    version = unpack(old[1][40:]).versions[0]
    node.plant(b"~sc:t:" + node.name(b"t"), (MARK_FLAGS, version))
    assert load() == 3


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("secret", [None, NEW])
def test_planted_pickles_never_run(make_signed, codec, secret):
    """Under no flags, within or without an envelope, of any protocol."""
    if codec == "pickle" and secret is None:
        with pytest.raises(ConfigurationError, match="secret"):
            make_signed(codec=codec, secret=None)
        return
    client = make_signed(codec=codec, secret=secret, read_compressed=True)
    payloads = client._cluster.payloads
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        planted = pickle.dumps(Planted(), protocol)
        for data in (planted, bytes(40) + planted, zlib.compress(planted)):
            for flags in (*range(64), *EVERY_FLAG, *(each | 1 for each in EVERY_FLAG), 2**31 + 1):
                with contextlib.suppress(DecodeError):
                    payloads.decode(b"k", (flags, data))
                with contextlib.suppress(DecodeError):
                    envelope = pack(Envelope(flags, data, 0.0, 0.0, 1.0))
                    payloads.decode(b"k", (ENVELOPE_FLAGS, envelope))


@pytest.mark.usefixtures("nothing_runs")
def test_a_pickle_signed_with_another_secret_is_not_read(make_signed):
    """A pickle that was signed with another secret is not read."""
    make_signed(codec="pickle", secret=OLD).set("k", Planted())
    payload = make_signed(codec="pickle", secret=OLD)._cluster.payloads.encode(b"k", Planted())
    reader = make_signed(codec="pickle")
    Node(reader).plant(b"k", payload)
    assert reader.get("k", "miss") == "miss"


def test_secrets_can_be_rotated(make_signed, url):
    """The first signs, and all are believed: values stay readable during the rollout."""
    if url.startswith("memory"):
        pytest.skip("each client has its own node")
    old, both, new = (make_signed(secret=each) for each in (OLD, [NEW, OLD], NEW))
    old.set("before", "value")
    both.set("since", "value")
    found = [client.get_many(["before", "since"]) for client in (old, both, new)]
    assert found == [{"before": "value"}, {"before": "value", "since": "value"}, {"since": "value"}]


@pytest.mark.parametrize("secret", ["short", [NEW, "short"], b"fifteen bytes ."])
def test_a_short_secret_is_refused(mode, secret):
    """It could be guessed; the error does not show it."""
    with pytest.raises(ConfigurationError, match="16 bytes") as caught:
        make_client(mode, "memory://a", secret=secret)
    assert "short" not in str(caught.value)


def test_a_secret_signs_for_codec_objects_too(mode):
    """A codec object that runs code must be signed."""
    client = make_client(mode, "memory://a", codec=Pickle(), secret=NEW)
    client.set("k", range(3))
    assert client.get("k") == range(3)
    assert Node(client).held(b"k")[0] & SIGNED
    client.close()
    with pytest.raises(ConfigurationError, match="secret"):
        make_client(mode, "memory://a", codec=Pickle())


def test_a_client_without_the_secret_reads_nothing_signed(make_signed, url):
    """It takes no signature for a part of a value."""
    if url.startswith("memory"):
        pytest.skip("each client has its own node")
    signed, plain = make_signed(), make_signed(secret=None)
    for value in ("text", b"bytes", ["list"]):
        signed.set("k", value)
        assert plain.get("k", "miss") == "miss"


def test_a_longer_life_is_signed(make_signed):
    """`touch` makes a signed value live longer, and a shorter life is kept to."""
    client = make_signed()
    for value in ("text", ["list"], 7):
        client.set("k", value, ttl=60)
        assert client.touch("k", 3600) is True
        assert client.touch("k", None) is True
        assert client.get("k") == value
    assert client.touch("missing", 60) is False
    Node(client).plant(b"k", (32 << SHIFT | SIGNED, bytes(60)))
    assert client.touch("k", 60) is False
