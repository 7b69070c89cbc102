"""Subclasses whose value is all their state: back with the exact type, and nothing is imported."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict
from enum import IntEnum, StrEnum
from http import HTTPStatus

import msgpack
import pytest
from markupsafe import Markup

from shardcache.core.codecs import Json, Msgpack, Raw
from shardcache.core.codecs.msgpack import MAX_COLLISIONS
from shardcache.core.codecs.subclasses import SUBCLASSES, code_of
from shardcache.errors import DecodeError, EncodeError

NAME = b"k"
Level = IntEnum("Level", "LOW")
Kind = StrEnum("Kind", "OPEN")
# Numbers of one hash.
COLLIDING = [1 + (2**61 - 1) * place for place in range(MAX_COLLISIONS + 1)]


# An `OrderedDict` of these keys, which no `Msgpack` would write.
CRAFTED = (
    Msgpack()
    .encode(NAME, [15, *(part for number in COLLIDING for part in (number, 0))])
    .replace(b"\x0f", b"\xc7\x00\x0f", 1)
)


class Louder(Markup):
    """A subclass of what the table has."""

    __slots__ = ()


def mark(code, *parts):
    """Return the message of a mark with these parts."""
    return msgpack.packb([msgpack.ExtType(code, b""), *parts])


def test_codes_never_change():
    """They are stored."""
    assert {code: (each.module, each.name) for code, each in SUBCLASSES.items()} == {
        11: ("markupsafe", "Markup"),
        12: ("django.utils.safestring", "SafeString"),
        13: ("http", "HTTPStatus"),
        14: ("http", "HTTPMethod"),
    }
    assert Msgpack().encode(NAME, OrderedDict(a=1)) == mark(15, "a", 1)
    assert Msgpack().encode(NAME, Counter("a")) == mark(16, "a", 1)
    assert Msgpack().encode(NAME, Markup("a")) == mark(11, "a")


def test_a_type_that_is_not_loaded_is_not_read(monkeypatch):
    """Reading imports nothing, whatever is stored."""
    data = Msgpack().encode(NAME, Markup("x"))
    monkeypatch.delitem(sys.modules, "markupsafe")
    with pytest.raises(DecodeError):
        Msgpack().decode(NAME, data)
    assert "markupsafe" not in sys.modules


def test_a_type_of_the_same_name_is_another():
    """The table names the class that is found in the module."""
    impostor = type("Markup", (str,), {"__module__": "markupsafe", "__qualname__": "Markup"})
    assert (code_of(impostor), code_of(Markup)) == (0, 11)
    with pytest.raises(EncodeError, match=r"store str\(value\)"):
        Msgpack().encode(NAME, impostor("x"))


@pytest.mark.parametrize(
    ("value", "way"),
    [
        (Level.LOW, "value.value"),
        (Kind.OPEN, "value.value"),
        (Louder("x"), "str(value)"),
        (defaultdict(list), "dict(value)"),
        (type("Rows", (OrderedDict,), {})(), "dict(value)"),
        (type("Number", (int,), {})(1), "int(value)"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("codec", [Msgpack(), Json()])
def test_other_subclasses_are_refused_with_ways_out(codec, value, way):
    """Own enums and subclasses come back through `returns=` only."""
    for nested in (value, [value], {"a": (value,)}, OrderedDict(a=value)):
        with pytest.raises(EncodeError) as raised:
            codec.encode(NAME, nested)
        if nested is value:
            assert way in str(raised.value)
            assert "returns=" in str(raised.value)


@pytest.mark.parametrize("value", [Markup("x"), HTTPStatus.OK, OrderedDict(a=1), Counter("a")])
@pytest.mark.parametrize("codec", [Json(), Raw()])
def test_other_codecs_refuse_them(codec, value):
    """Their bytes have no place for a type."""
    with pytest.raises(EncodeError, match="cannot store"):
        codec.encode(NAME, value)


def test_what_a_dict_of_a_subclass_holds_is_checked():
    """It may have attributes, keys that collide, and values that would change."""
    noted = OrderedDict(a=1)
    noted.note = "lost"
    for value in (noted, OrderedDict(a=bytearray()), OrderedDict({("a",): 1, 2: bytearray()})):
        with pytest.raises(EncodeError):
            Msgpack().encode(NAME, value)
    with pytest.raises(EncodeError, match="same hash"):
        Msgpack().encode(NAME, OrderedDict.fromkeys(COLLIDING))


@pytest.mark.parametrize(
    "data",
    [
        mark(11),
        mark(11, 7),
        mark(11, b"x"),
        mark(11, "x", "y"),
        mark(13, "200"),
        mark(13, 999),
        mark(14, "NONE"),
        mark(15, "a"),
        mark(15, [], 1),
        mark(16, {}, 1),
        mark(17, "x"),
        CRAFTED,
    ],
    ids=repr,
)
def test_crafted_marks_are_decode_errors(data):
    """Nothing else is raised, and no class outside the table is called."""
    with pytest.raises(DecodeError):
        Msgpack().decode(NAME, data)
