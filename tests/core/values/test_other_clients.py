"""What other clients wrote is read within limits, or refused with the reason."""

from __future__ import annotations

import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.codecs import Json, Msgpack, Raw
from shardcache.core.values.flags import UNKNOWN_FLAGS
from shardcache.core.values.other_clients import (
    CHUNK,
    DEFAULT_LARGEST,
    MAX_INFLATED,
    ZLIB,
    InflateBudget,
    OtherClients,
    largest_value,
)
from shardcache.core.values.payloads import Payloads, SignedPayloads
from shardcache.errors import DecodeError

NAME = b"4:shop:k"
OPEN = {"unsigned": True, "compressed": True}
FOREIGN = {1: pickle.dumps([1, 2], 2), 16: b"text", 2: b"7", 4: b"7", 0: b"bytes"}


def reading(codec=Msgpack, **options):
    """Return the payloads of a codec that reads other clients' values."""
    return Payloads(codec(), OtherClients(**options))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], DEFAULT_LARGEST),
        ([("max_value_bytes", "5000")], 5000),
        ([("max_value_bytes", "5e3")], DEFAULT_LARGEST),
        ([("max_value_bytes", "-1")], DEFAULT_LARGEST),
        ([("db", "7")], DEFAULT_LARGEST),
    ],
)
def test_a_node_says_how_large_a_value_may_be(options, size):
    """By its URL; what is no number is for another part to refuse."""
    assert largest_value(options) == size


@given(st.binary(max_size=200), st.integers(1, 200))
def test_a_value_is_inflated_whole_or_not_at_all(data, largest):
    """Up to the limit of a value, and never a byte beyond it."""
    budget = InflateBudget(largest)
    if len(data) <= largest:
        assert budget.inflate(zlib.compress(data)) == data
    else:
        with pytest.raises(DecodeError, match=rf"beyond the limit of a value \({largest}\)"):
            budget.inflate(zlib.compress(data))


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_large_values_are_inflated_in_chunks(size):
    """Of any length, and up to exactly the limit."""
    for largest in (size, size + 1):
        assert InflateBudget(largest).inflate(zlib.compress(bytes(size))) == bytes(size)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"no zlib", "marked as compressed, but not by zlib"),
        (zlib.compress(b"altered")[:-1] + b"x", "marked as compressed, but not by zlib"),
        (b"", "truncated"),
        (zlib.compress(b"cut short")[:-1], "truncated"),
        (zlib.compress(b"one") + zlib.compress(b"two"), "truncated"),
    ],
)
def test_damaged_data_is_refused(data, fault):
    """With no part of it in the error."""
    with pytest.raises(DecodeError, match=fault) as caught:
        InflateBudget(1000).inflate(data)
    assert caught.value.__cause__ is None


@pytest.mark.slow
def test_a_call_has_one_budget_for_all_its_values():
    """Values of which each is within its limit add up; broken ones count as well."""
    largest = MAX_INFLATED // 2
    value, broken = zlib.compress(bytes(largest)), zlib.compress(bytes(largest))[:-1] + b"x"
    for second in (value, broken):
        budget = InflateBudget(largest)
        assert len(budget.inflate(value)) == largest
        try:
            budget.inflate(second)
        except DecodeError:
            assert second is broken
        for rest in (value, zlib.compress(b"x"), zlib.compress(b"")):
            with pytest.raises(DecodeError, match=r"of this call \(\d+\)"):
                budget.inflate(rest)
    assert len(InflateBudget(2 * MAX_INFLATED).inflate(value)) == largest


@pytest.mark.slow
def test_a_batch_shares_a_budget_and_single_values_do_not():
    """A decoder is of one call; without compressed values there is nothing to count."""
    payloads = reading(compressed=True)
    payloads.others.largest = MAX_INFLATED
    value = (ZLIB, zlib.compress(bytes(MAX_INFLATED // 2 + 1)))
    decode = payloads.decoder()
    assert decode(NAME, value) == bytes(MAX_INFLATED // 2 + 1)
    with pytest.raises(DecodeError, match="of this call"):
        decode(NAME, value)
    assert payloads.decoder()(NAME, value) == payloads.decode(NAME, value)
    plain = reading()
    assert plain.decoder() == plain.decode


@pytest.mark.parametrize("codec", [Msgpack, Json, Raw])
@pytest.mark.parametrize(
    ("flags", "options", "fault"),
    [
        (1, {"compressed": True}, "a pickle of another client, or text of a JsonSerde: .*unsigned"),
        (9, {"compressed": True}, "a pickle of another client, or text of a JsonSerde: .*unsigned"),
        (8, {"unsigned": True}, "read_compressed is off"),
        (9, {"unsigned": True}, "read_compressed is off"),
        (3, OPEN, "by none of the known clients"),
        (1 << 31, OPEN, "written by another codec, signed with a secret"),
    ],
)
def test_each_refusal_has_its_reason(codec, flags, options, fault):
    """So that an operator knows which setting would read it."""
    with pytest.raises(DecodeError, match=fault):
        reading(codec, **options).decode(NAME, (flags, FOREIGN[1]))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("codec", "values"),
    [
        (Msgpack, {0: b"bytes", 1: [1, 2], 2: 7, 4: 7, 16: "text"}),
        (Raw, {0: b"bytes", 1: [1, 2], 2: b"7", 4: b"7", 16: b"text"}),
        (Json, {1: [1, 2], 2: 7, 4: 7}),
    ],
)
def test_a_client_that_trusts_other_clients_reads_them(codec, values, compressed):
    """By their flags; the codecs `raw` and `json` see their bytes, and pickles are pickles."""
    payloads = reading(codec, **OPEN)
    for flags, value in values.items():
        data = FOREIGN[flags]
        stored = (flags | ZLIB, zlib.compress(data)) if compressed else (flags, data)
        found = payloads.decode(NAME, stored)
        assert (type(found), found) == (type(value), value)


def test_json_reads_what_others_compressed():
    """Text that carries no kind is JSON, compressed or not."""
    payloads = reading(Json, compressed=True)
    for flags in (0, 16):
        assert payloads.decode(NAME, (flags, b'{"a":1}')) == {"a": 1}
        assert payloads.decode(NAME, (flags | ZLIB, zlib.compress(b'{"a":1}'))) == {"a": 1}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_of_marked_protocols_are_read(protocol):
    """Those begin with a byte that no text begins with."""
    payloads = reading(**OPEN)
    assert payloads.decode(NAME, (1, pickle.dumps({"a": (1, 2)}, protocol))) == {"a": (1, 2)}


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps([1], 0),
        pickle.dumps([1], 1),
        b"\x80\x06K\x01.",
        b"\x80\x01K\x01.",
        b"\x80",
        b"",
        b"text",
    ],
)
def test_other_pickles_are_not(data):
    """A user's text could be one of protocol 0, and would run code."""
    with pytest.raises(DecodeError, match="is not of protocol 2 to 5"):
        reading(**OPEN).decode(NAME, (1, data))


@pytest.mark.parametrize(
    ("data", "kind"), [(b"\x80\x05hunter2", "UnpicklingError"), (b"\x80\x05", "EOFError")]
)
def test_a_pickle_that_fails_is_refused_without_its_bytes(data, kind):
    """The error has the type of what it raised, and is not caused by it."""
    with pytest.raises(DecodeError, match=rf"^a pickle cannot be read \({kind}\)$") as caught:
        reading(**OPEN).decode(NAME, (1, data))
    assert caught.value.__context__ is None


def test_what_redis_holds_without_a_header_is_text_for_two_codecs():
    """The others say which codecs would read it."""
    assert reading(Json).decode(NAME, (UNKNOWN_FLAGS, b'"x"')) == "x"
    assert reading(Raw).decode(NAME, (UNKNOWN_FLAGS, b"x")) == b"x"
    with pytest.raises(DecodeError, match="only the codecs 'json' and 'raw'"):
        reading(**OPEN).decode(NAME, (UNKNOWN_FLAGS, b"x"))


def test_a_client_with_a_secret_reads_unsigned_values_when_told_to():
    """Those of other clients only, and by the limits of others as well."""
    secrets = [b"s" * 16]
    trusting = SignedPayloads(Msgpack(), secrets, lambda: 0.0, OtherClients(unsigned=True))
    strict = SignedPayloads(Msgpack(), secrets, lambda: 0.0, OtherClients(compressed=True))
    assert trusting.decode(NAME, (16, b"text")) == "text"
    assert trusting.open(NAME, (1, FOREIGN[1])) == (1, FOREIGN[1])
    for payloads in (trusting, strict):
        with pytest.raises(DecodeError, match="not signed"):
            payloads.decode(NAME, Payloads(Msgpack()).encode(NAME, None))
    with pytest.raises(DecodeError, match="read with read_unsigned"):
        strict.decode(NAME, (16, b"text"))
