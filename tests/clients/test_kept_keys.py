"""Keys that are kept for equal calls are those that would be built again."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from functools import wraps

import pytest

from shardcache.clients import key_builder
from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.errors import KeyBuildError


class Colour(str, Enum):  # noqa: UP042 - this one equals a text
    """A member equals its text, and is another argument."""

    RED = "red"


class Size(IntEnum):
    """A member equals its number, and is another argument."""

    ONE = 1


class Text(str):
    """It may hold more than its text, and no key is built of it."""

    __slots__ = ()


def plain(first, second="en", *rest, flag=False):
    """Take anything."""
    return first, second, rest, flag


def bare(first=None):
    """Take one argument or none."""
    return first


@wraps(bare)
def wrapping(*args, **kwargs):
    """Pass on what comes."""
    return bare(*args, **kwargs)


CONFUSABLE = [
    *(1, True, 1.0, "1", b"1", None, "None", Size.ONE, Decimal(1), Fraction(1), (1,), [1]),
    *(0, False, 0.0, -0.0, "", b"", 2**70, float(2**70), float("inf"), "red", Colour.RED),
    Text("red"),
]
CALLS = [
    *(((value,), {}) for value in CONFUSABLE),
    *(((), {"first": value}) for value in CONFUSABLE),
    *((("a",), {name: value}) for value in CONFUSABLE for name in ("second", "flag")),
    *((("a", value, value), {}) for value in CONFUSABLE),
    ((), {}),
]


def key_of(keys, args, kwargs):
    """Return the key of a call, or what is raised instead."""
    try:
        return keys.key(tuple(args), kwargs, "")
    except (KeyBuildError, TypeError) as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (plain, {}),
        (plain, {"typed": True}),
        (plain, {"key": "k:{first}:{second}:{rest}:{flag}"}),
        (plain, {"key": "k:{first}", "ignore": ("second", "rest", "flag")}),
        (wrapping, {}),
        (wrapping, {"typed": True}),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
@pytest.mark.parametrize("calls", [CALLS, CALLS[::-1]], ids=["in order", "backwards"])
def test_a_kept_key_is_the_one_that_would_be_built(function, options, calls):
    """Whatever was called before: equal values of other types are told apart where they are otherwise."""
    spec = KeySpec(namespace="n", **options)
    kept = KeyBuilder(function, spec)
    for args, kwargs in [*calls, *calls]:
        assert key_of(kept, args, kwargs) == key_of(KeyBuilder(function, spec), args, kwargs)


@pytest.fixture
def digests(monkeypatch):
    """Count the digests that are computed."""
    computed = []
    digest = key_builder.digest

    def count(parts):
        computed.append(parts)
        return digest(parts)

    monkeypatch.setattr(key_builder, "digest", count)
    return computed


@pytest.mark.parametrize(
    ("args", "kwargs"), [((7,), {}), ((7, "de"), {}), (("7",), {"second": None}), ((b"7", 1.5), {})]
)
def test_an_equal_call_computes_no_digest(digests, args, kwargs):
    """Arguments by position and by name."""
    keys = KeyBuilder(plain, KeySpec(namespace="n"))
    assert len({keys.key(args, dict(kwargs), "") for _ in range(5)}) == 1
    assert len(digests) == 1
    assert keys.key(args, dict(kwargs), "later") == keys.key(args, dict(kwargs), "").replace(
        "n:0:", "n:0@later:"
    )
    assert len(digests) == 1


def test_what_may_change_is_not_kept(digests):
    """A list, a default that is one, and what is larger than a kilobyte are read for each call."""

    def defaulting(items=[1]):  # noqa: B006 - it is changed below
        return items

    keys = KeyBuilder(defaulting, KeySpec(namespace="n"))
    before = keys.key((), {}, "")
    defaulting.__defaults__[0].append(2)
    assert keys.key((), {}, "") != before
    items = [1]
    before = keys.key((items,), {}, "")
    items.append(3)
    assert keys.key((items,), {}, "") != before
    digests.clear()
    for _ in range(2):
        keys.key(("x" * 2000,), {}, "")
    assert len(digests) == 2


def test_few_calls_are_kept():
    """The oldest go when there are too many, so that a function of many arguments stays small."""
    keys = KeyBuilder(plain, KeySpec(namespace="n"))
    for number in range(5000):
        keys.key((number,), {}, "")
    assert len(keys._kept) <= 1024
