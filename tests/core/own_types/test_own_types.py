"""Values of own types on every codec: back with the exact type, or refused with words."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import pytest

from core.own_types.samples import (
    BEYOND_JSON,
    REFUSED,
    RESTORED,
    SUBCLASSES,
    Model,
    Shout,
    Struct,
)
from shardcache.core.codecs import Json, Msgpack, Pickle, Raw
from shardcache.core.own_types.choice import declare
from shardcache.core.own_types.differences import first_difference
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import payloads_of
from shardcache.errors import ConfigurationError, EncodeError

# No library handles these.
UNSUPPORTED = [
    range,
    list[range],
    Fraction | range,
    list["Missing"],  # noqa: F821 - that is the point
    "Point",
    Struct | Model,
    defaultdict[str, Shout],
]

NAME = b"k"
SECRET = b"at least sixteen bytes"
CODECS = [Msgpack, Json, Pickle]


def payloads(codec, kind=None):
    """Return the stored form of values of a type, by a codec."""
    secrets = [SECRET] if codec is Pickle else []
    declared = None if kind is None else declare(kind)
    return payloads_of(codec(), secrets, lambda: 0.0, OtherClients(), declared)


def assert_restored(stored, value):
    """Assert that all callers get a value equal to `value`, and of the same types."""
    payload, first = stored.dump_result(NAME, value)
    for twin in (first, stored.load(NAME, payload)):
        assert first_difference(value, twin) is None
        assert type(twin) is type(value)
        assert repr(twin) == repr(first)


def named(samples):
    """Return samples as parameters with names."""
    return [pytest.param(*each, id=f"{place}-{each[0]}") for place, each in enumerate(samples)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("kind", "value"), named(RESTORED))
def test_a_value_comes_back(codec, kind, value):
    """It is equal, and of the same types, at the first call and at each hit."""
    assert_restored(payloads(codec, kind), value)


@pytest.mark.parametrize(("kind", "value"), named(BEYOND_JSON))
def test_a_value_that_json_would_change(kind, value):
    """The other codecs return it, and `json` refuses it."""
    assert_restored(payloads(Msgpack, kind), value)
    assert_restored(payloads(Pickle, kind), value)
    with pytest.raises(EncodeError):
        payloads(Json, kind).dump_result(NAME, value)


@pytest.mark.parametrize("codec", [*CODECS, Raw])
@pytest.mark.parametrize(("kind", "value"), named(REFUSED))
def test_a_value_that_would_change_is_refused(codec, kind, value):
    """The words tell the types, and no value."""
    with pytest.raises(EncodeError) as raised:
        payloads(codec, kind).dump_result(NAME, value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("kind", "value"), named(RESTORED))
def test_raw_stores_no_own_type(kind, value):
    """It returns bytes, whatever was stored."""
    if type(value) is bytes:
        return
    with pytest.raises(EncodeError):
        payloads(Raw, kind).dump_result(NAME, value)


@pytest.mark.parametrize("kind", UNSUPPORTED, ids=str)
def test_a_type_that_no_library_handles(kind):
    """The error names the type, and what each library says."""
    with pytest.raises(ConfigurationError, match="is not a type that can be read back") as raised:
        declare(kind)
    assert "Pydantic: " in str(raised.value)


@pytest.mark.parametrize("value", SUBCLASSES, ids=repr)
def test_a_subclass_of_a_built_in_type_comes_back(value):
    """Without a declared type, by the default codec and by pickle."""
    for codec in (Msgpack, Pickle):
        payload = payloads(codec).dump(NAME, value)
        twin = payloads(codec).load(NAME, payload)
        assert first_difference(value, twin) is None
        assert (type(twin), repr(twin)) == (type(value), repr(value))
