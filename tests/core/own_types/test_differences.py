"""The first difference between a value and what is read back in its place."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from core.own_types.samples import (
    BERLIN,
    NOON,
    AttrsWithPrivate,
    Hiding,
    Kind,
    Open,
    Pair,
    Point,
    Struct,
    WithoutEquality,
    hiding,
)
from shardcache.core.own_types.differences import first_difference


@dataclass(slots=True)
class Unset:
    """A dataclass whose field may not be set."""

    x: int


ROME = ZoneInfo("Europe/Rome")  # of the same offset as Berlin
UNSET = Unset.__new__(Unset)


@pytest.mark.parametrize(
    ("value", "twin"),
    [
        (1, 1.0),
        ([1, {"a": (2,)}], [1.0, {"a": (Decimal(2),)}]),
        (math.nan, math.nan),
        ({1: "a"}, {1.0: "a"}),
        ({1, 2}, {1.0, 2}),
        (WithoutEquality(math.nan), WithoutEquality(math.nan)),
        (Point(1), Point(1.0)),
        (hiding(3), hiding(3)),
        (UNSET, Unset.__new__(Unset)),
        (NOON, NOON),
    ],
)
def test_equal_values_do_not_differ(value, twin):
    """Equal numbers are the same, and so are two that are no numbers."""
    assert first_difference(value, twin) is None


@pytest.mark.parametrize(
    ("value", "twin", "difference"),
    [
        (True, 1, "int in place of bool"),
        (1, 2.0, "float in place of int"),
        ("a", "b", "another value"),
        ("open", Kind.OPEN, "core.own_types.samples.Kind in place of str"),
        ([1, [2]], [1, [3]], "another value at [1][0]"),
        ([1], [1, 2], "2 items in place of 1"),
        (Pair(1), Pair(1, "x"), "another value at [1]"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "another value at […][…]"),
        ({"a": 1}, {"b": 1}, "other keys or members"),
        ({Kind.OPEN: 1}, {"open": 1}, "other keys or members"),
        ({Kind.OPEN}, {"open"}, "other keys or members"),
        ({1}, {2}, "other keys or members"),
        ({}, OrderedDict(), "collections.OrderedDict in place of dict"),
        (Point(1), Point(1, 2.0), "another value at .y"),
        (Struct(1, Kind.OPEN), Struct(1, Kind.SHUT), "another value at .kind"),
        (AttrsWithPrivate(1), AttrsWithPrivate(1, hidden=1), "another value at ._hidden"),
        (Open(x=1, more=1), Open(x=1, more=2), "another value at .__pydantic_extra__[…]"),
        (hiding(1), Hiding(x=1), "another value at .__pydantic_private__[…]"),
        (UNSET, Unset(1), "int in place of object at .x"),
        (object(), object(), "another value"),
        ([NOON], [NOON + timedelta(1)], "another value at [0]"),
        (NOON, NOON.astimezone(timezone(timedelta(hours=2))), "another time zone"),
        ({"a": BERLIN}, {"a": BERLIN.astimezone(ROME)}, "another time zone at […]"),
        (math.nan, 1.0, "another value"),
    ],
)
def test_the_place_and_the_types_are_reported(value, twin, difference):
    """Neither values nor keys of dicts are."""
    assert first_difference(value, twin) == difference
