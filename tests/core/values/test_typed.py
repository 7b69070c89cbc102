"""The stored form of values of a declared type."""

from __future__ import annotations

from decimal import Decimal

import pytest

from core.own_types.samples import Bytes, Point
from shardcache.core.codecs import Json, Msgpack, Raw
from shardcache.core.own_types.choice import declare
from shardcache.core.values.flags import TEXT_FLAGS
from shardcache.core.values.payloads import Payloads, SignedPayloads
from shardcache.core.values.typed import InvalidValueError
from shardcache.errors import DecodeError, EncodeError

NAME = b"k"
SECRET = b"at least sixteen bytes"


def typed(kind, codec=None):
    """Return the stored form of values of a type."""
    return Payloads(codec or Msgpack(), None, declare(kind))


def test_the_payload_is_that_of_the_built_in_values():
    """A client that does not know the type reads those."""
    payload, twin = typed(Point).dump_result(NAME, Point(1))
    assert payload == typed(Point).dump(NAME, Point(1)) == typed(Point).encode(NAME, Point(1))
    assert Payloads(Msgpack()).load(NAME, payload) == {"x": 1, "y": 0.0}
    assert typed(Point).decode(NAME, payload) == twin == Point(1)
    assert typed(str).dump(NAME, "text") == (TEXT_FLAGS, b"text")


def test_without_a_type_the_result_is_returned_itself():
    """It is its caller's own."""
    result = [1]
    payload, twin = Payloads(Msgpack()).dump_result(NAME, result)
    assert twin is result
    assert payload == Payloads(Msgpack()).dump(NAME, result)


def test_errors_in_place_of_a_value_have_no_type():
    """They are stored by the codec alone."""
    payload = typed(Point).dump_error(NAME, ["ValueError", []])
    assert typed(Point).load_error(NAME, payload) == ["ValueError", []]
    with pytest.raises(InvalidValueError):
        typed(Point).load(NAME, payload)


def test_signed_values_of_a_type():
    """The signature covers the built-in values, by the name of their codec."""
    signed, plain = (
        SignedPayloads(Json(), [SECRET], lambda: 0.0, None, declared)
        for declared in (declare(Point), None)
    )
    payload = signed.encode(NAME, Point(1))
    assert signed.decode(NAME, payload) == Point(1)
    assert plain.decode(NAME, payload) == {"x": 1, "y": 0.0}
    assert signed.name == "json"
    with pytest.raises(DecodeError):
        signed.decode(b"other", payload)


def test_a_value_that_does_not_validate_counts_by_itself():
    """From bytes that no codec wrote; neither quotes what it read."""
    with pytest.raises(
        InvalidValueError, match=r"not a valid core\.own_types\.samples\.Point"
    ) as raised:
        typed(Point).load(NAME, Payloads(Msgpack()).dump(NAME, {"x": "hunter2"}))
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None
    with pytest.raises(DecodeError) as other:
        typed(Point).load(NAME, (Msgpack.kind << 16, b"\xc1"))
    assert type(other.value) is DecodeError


def test_an_error_of_the_last_way_to_dump_is_reported():
    """The first ways lose more than the last."""
    with pytest.raises(EncodeError, match="codec 'raw' cannot store dict"):
        typed(Point, Raw()).dump_result(NAME, Point(1))
    with pytest.raises(EncodeError, match=r"not a valid .*samples\.Bytes: Unicode") as raised:
        typed(Bytes, Json()).dump_result(NAME, Bytes(data=b"\xff"))
    assert raised.value.__cause__ is not None


def test_what_cannot_be_compared_is_refused():
    """Comparing a signalling NaN raises."""
    with pytest.raises(EncodeError, match=r"cannot be compared .*InvalidOperation"):
        typed(Decimal).dump_result(NAME, Decimal("sNaN"))
