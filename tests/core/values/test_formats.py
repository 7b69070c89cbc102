"""Whatever a codec does, callers see values, or the errors of a codec."""

from __future__ import annotations

import pytest

from shardcache.core.codecs import Json, Msgpack, Raw
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import (
    BYTES_FLAGS,
    ENVELOPE_FLAGS,
    INTEGER_FLAGS,
    JSON_FLAGS,
    RAW_FLAGS,
    SHIFT,
    TEXT_FLAGS,
    UNMARKED_FLAGS,
)
from shardcache.core.values.formats import CheckedFormat, CodecFormat, JsonFormat, format_of
from shardcache.core.values.other_clients import OtherClients
from shardcache.errors import ConfigurationError, DecodeError, EncodeError

NAME = b"4:shop:k"
OTHERS = OtherClients()


class ScriptedFormat:
    """A format that does as it is told: an exception is raised, anything else returned."""

    name = "scripted"

    def __init__(self, outcome):
        self.outcome = outcome

    def encode(self, _name, _value):
        """Do as told."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    decode = encode


class Scripted(ScriptedFormat):
    """A codec that does as it is told."""

    kind = 77


# Each way in which the bytes of another author are written and read, and the flags of such bytes.
WAYS = [
    pytest.param(lambda outcome: CodecFormat(Scripted(outcome)), 77 << SHIFT, id="codec"),
    pytest.param(lambda outcome: JsonFormat(Scripted(outcome)), JSON_FLAGS, id="json"),
    pytest.param(lambda outcome: CheckedFormat(ScriptedFormat(outcome)), 77 << SHIFT, id="format"),
]


@pytest.mark.parametrize(("make", "flags"), WAYS)
def test_an_error_of_a_codec_is_passed_on(make, flags):
    """It says more than anything that could be said here."""
    refused, unread = EncodeError("no"), DecodeError("no")
    with pytest.raises(EncodeError) as caught:
        make(refused).encode(NAME, None)
    assert caught.value is refused
    with pytest.raises(DecodeError) as caught:
        make(unread).decode(NAME, (flags, b""))
    assert caught.value is unread


@pytest.mark.parametrize(("make", "flags"), WAYS)
def test_any_other_exception_is_the_cause(make, flags):
    """Of an `EncodeError` or a `DecodeError` that names the codec."""
    error = ZeroDivisionError()
    with pytest.raises(EncodeError, match="codec 'scripted' raised ZeroDivisionError") as caught:
        make(error).encode(NAME, None)
    assert caught.value.__cause__ is error
    with pytest.raises(DecodeError, match="codec 'scripted' raised ZeroDivisionError") as caught:
        make(error).decode(NAME, (flags, b""))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("data", ["text", None, bytearray(b"x")], ids=repr)
def test_a_codec_returns_bytes(data):
    """Anything else is refused before it is stored."""
    kind = type(data).__name__
    with pytest.raises(EncodeError, match=f"codec 'scripted' returned {kind}, not bytes"):
        CodecFormat(Scripted(data)).encode(NAME, None)


def test_each_codec_has_its_format():
    """`json` and `raw` have one of their own; another author's has its flags checked."""
    assert type(format_of(Msgpack(), OTHERS)) is CodecFormat
    assert format_of(Msgpack(), OTHERS).bytes_flags == BYTES_FLAGS
    for codec in (Json(), Raw()):
        chosen = format_of(codec, OTHERS)
        assert chosen.name == codec.name
        assert chosen.bytes_flags == frozenset()
    checked = format_of(ScriptedFormat((TEXT_FLAGS, b"x")), OTHERS)
    assert type(checked) is CheckedFormat
    assert (checked.name, checked.bytes_flags) == ("scripted", frozenset())
    assert checked.encode(NAME, None) == (TEXT_FLAGS, b"x")


@pytest.mark.parametrize("kind", [32, 63, 128, "77", None])
def test_a_codec_of_another_author_takes_a_free_kind(kind):
    """The error has the kind, and those that are free."""
    codec = type("Mine", (Scripted,), {"kind": kind})(b"")
    with pytest.raises(ConfigurationError) as caught:
        format_of(codec, OTHERS)
    assert str(caught.value) == (
        f"codec 'scripted': kind {kind!r} is not 64 to 127, which are for codecs other than"
        " shardcache's own"
    )


@pytest.mark.parametrize(
    ("codec", "value", "payload", "found"),
    [
        (Raw(), "é", (TEXT_FLAGS, "é".encode()), "é".encode()),
        (Raw(), b"x", (UNMARKED_FLAGS, b"x"), b"x"),
        (Raw(), b"", (Raw.kind << SHIFT, b""), b""),
        (Raw(), 7, (INTEGER_FLAGS, b"7"), b"7"),
        (Json(), 7, (INTEGER_FLAGS, b"7"), 7),
        (Json(), True, (Json.kind << SHIFT, b"true"), True),
        (Json(), "x", (Json.kind << SHIFT, b'"x"'), "x"),
        (Msgpack(), "x", (TEXT_FLAGS, b"x"), "x"),
        (Msgpack(), b"", (RAW_FLAGS, b""), b""),
    ],
)
def test_a_codec_stores_a_plain_value_as_others_read_it(codec, value, payload, found):
    """In an envelope too, from which every codec reads what it stored."""
    one = format_of(codec, OTHERS)
    assert one.encode(NAME, value) == payload
    enveloped = (ENVELOPE_FLAGS, pack(Envelope(*payload, 0.0, 0.0, 1.0)))
    for stored in (payload, enveloped):
        assert one.decode(NAME, stored) == found
        assert type(one.decode(NAME, stored)) is type(found)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ((TEXT_FLAGS, b"hunter2\xff"), "marked as text, but not UTF-8"),
        ((INTEGER_FLAGS, b"hunter2"), "marked as a whole number, but not one: JSON of a JsonSerde"),
    ],
)
def test_bytes_that_are_not_what_they_are_marked_as_are_refused(payload, fault):
    """No error holds them, not even as its context."""
    with pytest.raises(DecodeError, match=fault) as caught:
        format_of(Msgpack(), OTHERS).decode(NAME, payload)
    assert caught.value.__context__ is None
    assert "hunter2" not in str(caught.value)


def test_a_large_number_is_json_as_well():
    """Beyond the digits that servers and interpreters take it goes through the codec."""
    one = format_of(Json(), OTHERS)
    assert one.encode(NAME, 10**640) == (Json.kind << SHIFT, b"1" + b"0" * 640)
    assert one.decode(NAME, one.encode(NAME, 10**640)) == 10**640


@pytest.mark.parametrize("codec", [Msgpack(), Json(), Raw(), ScriptedFormat(b"")])
@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "marked as an envelope, but not one"),
        (pack(Envelope(ENVELOPE_FLAGS, b"", 0.0, 0.0, 1.0)), "does not hold a value"),
        (pack(Envelope(1, b"\x80\x05N.", 0.0, 0.0, 1.0)), "does not hold a value"),
    ],
)
def test_an_envelope_holds_a_value(codec, data, fault):
    """And nothing that another client may have written."""
    with pytest.raises(DecodeError, match=fault):
        format_of(codec, OTHERS).decode(NAME, (ENVELOPE_FLAGS, data))


def test_a_codec_needs_no_budget_for_its_own_values():
    """The life of a value and the budget of a call are for others."""
    for codec in (Msgpack(), Json(), Raw()):
        one = format_of(codec, OTHERS)
        assert one.encode(NAME, "x", 60.0) == one.encode(NAME, "x")
        assert one.decode(NAME, one.encode(NAME, 7), OTHERS.budget()) in {7, b"7"}
