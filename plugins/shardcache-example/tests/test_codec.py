"""The example codec gives back what went in, and takes any bytes."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardcache_example import codec
from shardcache_example.codec import JsonZlib

from shardcache import Client, ConfigurationError, DecodeError, EncodeError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEY = b"key"


@given(VALUES)
def test_what_comes_back_equals_what_went_in(value: object):
    """Type included, for every value that it takes."""
    data = JsonZlib().encode(KEY, value)
    assert json.loads(zlib.decompress(data)) == value
    assert JsonZlib().decode(KEY, data) == value


@given(st.binary())
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes):
    """Nothing else is raised."""
    with pytest.raises(DecodeError):
        JsonZlib().decode(KEY, data)


def test_a_compression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch):
    """The size is bounded before the memory is taken."""
    data = JsonZlib().encode(KEY, "a" * 2000)
    monkeypatch.setattr(codec, "LARGEST", 1000)
    with pytest.raises(DecodeError, match="more than 1000 bytes"):
        JsonZlib().decode(KEY, data)


def test_what_json_does_not_give_back_is_refused():
    """A tuple would come back as a list."""
    with pytest.raises(EncodeError, match="tuple"):
        JsonZlib().encode(KEY, (1, 2))


def test_a_client_uses_it_by_name():
    """With its options, as settings write them."""
    client = Client("memory://a", codec="json-zlib:level=9")
    assert client.set("k", ["text"] * 1000)
    assert client.get("k") == ["text"] * 1000


@pytest.mark.parametrize("options", [{"level": "0"}, {"level": "fast"}, {"rounds": 3}])
def test_wrong_options_are_refused(options: dict[str, object]):
    """The error names what there is."""
    with pytest.raises(ConfigurationError, match="level=1 to 9"):
        JsonZlib(**options)
