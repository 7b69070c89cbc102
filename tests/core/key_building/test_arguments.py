"""Equal calls have equal keys, in every process, and no two others share one."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import Enum, Flag, IntEnum
from itertools import repeat
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.clients.key_builder import KeyBuilder, KeySpec
from shardcache.core.key_building.arguments import UnkeyableError, canonical, digest
from shardcache.errors import ConfigurationError, KeyBuildError


class Colour(Enum):
    """An enum."""

    RED = 1
    BLUE = 2


class Level(IntEnum):
    """Numbers with names."""

    LOW = 1


class Point(NamedTuple):
    """A named tuple."""

    x: object
    y: object


@dataclass(frozen=True)
class Range:
    """A dataclass."""

    low: object
    high: object


few = st.integers(-2, 2)  # so that two values are often equal, or nearly
zones = st.sampled_from(
    [None, dt.UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), dt.timezone(dt.timedelta(hours=1))]
)
moments = st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2), timezones=zones)  # noqa: DTZ001
numbers = st.one_of(
    few,
    st.integers(),
    st.booleans(),
    few.map(float),
    st.floats(allow_nan=False),
    few.map(Decimal),
    st.decimals(allow_nan=False),
)
plain = st.one_of(
    st.none(),
    numbers,
    st.text(),
    st.text("1a:", max_size=2),
    st.binary(max_size=2),
    st.dates(),
    st.datetimes(),
    moments,
    st.times(timezones=zones),
    st.timedeltas(),
    st.uuids(),
    zones,
    st.sampled_from([*Colour, *Level, Colour, Level]),
)


def containers(inner):
    """Return what holds other values."""
    pairs = st.dictionaries(st.one_of(st.text(max_size=2), few), inner, max_size=3)
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        pairs,
        pairs.map(OrderedDict),
        pairs.map(lambda each: defaultdict(list, each)),
        st.dictionaries(st.text(max_size=2), few, max_size=3).map(Counter),
        st.frozensets(st.one_of(few, st.text(max_size=1)), max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Range, inner, inner),
    )


values = st.recursive(plain, containers, max_leaves=8)


class Access(Flag):
    """Members that are combined."""

    READ = 1
    WRITE = 2


class User:
    """Something with a key of its own."""

    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        """Return what tells users apart."""
        return self.number


def same(one, other, typed):  # noqa: PLR0911 - a rule for each kind of value
    """Return whether two values are one argument, by the rule of the docs."""
    if not typed and isinstance(one, NUMBERS) and isinstance(other, NUMBERS):
        return type(one) is type(other) if Level in map(type, (one, other)) else one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other, repeat(typed)))
    if isinstance(one, OrderedDict):
        return same(list(one.items()), list(other.items()), typed)
    if isinstance(one, (dict, frozenset)):
        return same_unordered(
            *(list(getattr(each, "items", each.copy)()) for each in (one, other)), typed
        )
    if isinstance(one, Range):
        return same([one.low, one.high], [other.low, other.high], typed)
    if isinstance(one, (dt.datetime, dt.time)):
        return one.replace(tzinfo=None) == other.replace(tzinfo=None) and (
            one.fold == other.fold and same(one.tzinfo, other.tzinfo, typed)
        )
    if isinstance(one, (float, Decimal)):
        return repr(one) == repr(other)  # 0.0 and -0.0 are two of one type
    return one == other


def same_unordered(one, other, typed):
    """Return whether each of some values is one of others."""
    if len(one) != len(other):
        return False
    left = list(other)
    for each in one:
        found = next((at for at, it in enumerate(left) if same(each, it, typed)), None)
        if found is None:
            return False
        del left[found]
    return True


NUMBERS = (int, float, Decimal)


@given(values, values, st.booleans())
def test_two_values_have_one_key_exactly_if_they_are_one_argument(one, other, typed):
    """Equal bytes mean equal calls and the reverse, over trees of everything supported."""
    assert (canonical(one, typed=typed) == canonical(other, typed=typed)) == same(one, other, typed)


@given(values, st.booleans(), st.data())
def test_a_value_is_known_from_a_similar_one(one, typed, data):
    """With one leaf replaced, or in another container, it is the same only by the rule."""
    other = data.draw(changes(one))
    assert (canonical(one, typed=typed) == canonical(other, typed=typed)) == same(one, other, typed)


def changes(value):
    """Return values near another one."""
    if isinstance(value, (Point, Range)):
        low, high = vars(value).values() if isinstance(value, Range) else value
        return st.one_of(
            st.sampled_from([Point(low, high), Range(low, high), (low, high), Range(high, low)]),
            changes(low).map(lambda each: type(value)(each, high)),
        )
    if isinstance(value, (list, tuple)):
        near = [list(value), tuple(value), [list(value)], list(value)[::-1]]
        return st.one_of(
            st.sampled_from(near),
            *(
                changes(each).map(
                    lambda it, at=at: type(value)([*value[:at], it, *value[at + 1 :]])
                )
                for at, each in enumerate(value)
            ),
        )
    if isinstance(value, dict):
        items = list(value.items())
        kinds = [dict, OrderedDict, lambda pairs: defaultdict(list, pairs)]
        return st.sampled_from([kind(each) for kind in kinds for each in (items, items[::-1])])
    if isinstance(value, (int, float)) and abs(value) < 1e300:
        return st.sampled_from([int(value), float(value), Decimal(value), str(value), [value]])
    return st.sampled_from([value, str(value), (value,), None])


@given(values)
def test_equal_numbers_are_one_unless_typed(value):
    """`1`, `1.0`, `True` and `Decimal(1)` are one argument, as they are one key of a dict."""
    assert canonical([value]) == canonical([value])
    assert len({canonical(one) for one in (1, 1.0, True, Decimal(1), Decimal("1.00"))}) == 1
    assert len({canonical(one, typed=True) for one in (1, 1.0, True, Decimal(1))}) == 4


def test_sets_and_dicts_have_one_order():
    """Whatever order they were made in."""
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({"x", "y", "z"}) == canonical({"z", "y", "x"})
    assert canonical({1: "a"}) != canonical({"1": "a"})
    assert canonical(frozenset({1})) == canonical({1})


def test_everything_that_may_be_stored_may_be_an_argument():
    """So may enums, classes, and objects with a key of their own."""
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    every = [
        moment,
        moment.replace(tzinfo=None),
        moment.date(),
        moment.time(),
        dt.timedelta(1, 2, 3),
        Decimal("1.5"),
        UUID(int=7),
        Colour.RED,
        Colour.BLUE,
        User,
        User(7),
        User(8),
        float("nan"),
        float("inf"),
        10**1000,
        "\udc80",
        b"",
        "",
        (),
        [],
    ]
    assert len({canonical(one) for one in every}) == len(every)


@pytest.mark.parametrize("value", [object(), [object()], {"k": lambda: 0}, ...])
def test_a_value_without_stable_bytes_is_refused(value):
    """No address, `repr` or pickle stands for it."""
    with pytest.raises(UnkeyableError, match="a value of type"):
        canonical(value)


def test_a_value_that_holds_itself_is_refused():
    """Nesting has a limit."""
    endless = []
    endless.append(endless)
    with pytest.raises(UnkeyableError, match="nested"):
        canonical(endless)


def test_keys_are_the_same_in_every_process():
    """Whatever the hash seed."""
    program = (
        "from shardcache.core.key_building.arguments import canonical, digest;"
        "print(digest(canonical(({'b', 'a', 'c'}, {'k': 1.5, 'j': None}, 'é'))))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for seed in ("0", "1", "77")
    }
    assert seen == {digest(canonical(({"c", "b", "a"}, {"j": None, "k": 1.5}, "é")))}


def keys(function, **key_spec):
    """Return a function to ask for the key of a call."""
    made = KeyBuilder(function, KeySpec(**key_spec))
    return lambda *args, **kwargs: made.key(args, kwargs, "")


def profile(user, verbose=False, *, limit=10):  # noqa: FBT002
    """Stand for any function."""
    return user, verbose, limit


def test_a_call_has_one_key_however_it_is_written():
    """Positions, names and defaults make no difference."""
    key = keys(profile)
    assert len({key(1), key(user=1), key(1, False), key(1, verbose=False, limit=10)}) == 1  # noqa: FBT003
    assert len({key(1), key(2), key(1, True), key(1, limit=11)}) == 4  # noqa: FBT003
    pair = keys(lambda a, b=2: (a, b), namespace="pair")
    assert pair(1, 23) != pair(12, 3)


def test_a_simple_call_has_the_key_of_its_long_form():
    """The fast path gives the same key as the slow one."""

    def simple(a, b=2, c=3):
        return a, b, c

    key = keys(simple, namespace="simple")
    assert key(1) == key(a=1) == key(1, 2) == key(1, 2, 3) == key(1, c=3)
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        key()
    with pytest.raises(TypeError, match="too many positional arguments"):
        key(1, 2, 3, 4)


def test_variadic_arguments_are_part_of_the_key():
    """`*args` in order, and `**kwargs` in any order."""

    def variadic(*args, **kwargs):
        return args, kwargs

    key = keys(variadic, namespace="variadic")
    assert key(x=1, y=2) == key(y=2, x=1)
    assert len({key(), key(1), key(1, 2), key((1, 2)), key(x=1), key(y=1)}) == 6


def test_ignored_arguments_make_no_difference():
    """They may be of any type."""
    key = keys(profile, ignore=("user",))
    assert key(object()) == key(object())
    assert key(object()) != key(object(), limit=3)


def test_templates_and_functions_make_keys():
    """Namespace and version are in front of them all the same."""
    rest = ("verbose", "limit")
    app = {"namespace": "app"}
    assert keys(profile, key="user:{user}", ignore=rest, version=3, **app)(7) == "app:3:user:7"
    assert keys(profile, key="{user.number}", ignore=rest, **app)(User(9)) == "app:0:9"
    assert keys(profile, key=lambda user, *_, **__: f"u{user}", **app)(7) == "app:0:u7"
    assert keys(profile, key=lambda user, *_, **__: b"u%d" % user, **app)(7) == b"app:0:u7"
    with pytest.raises(KeyBuildError, match="not str or bytes"):
        keys(profile, key=lambda user, *_, **__: user)(7)


def test_an_argument_without_a_key_is_named():
    """The error has the ways out."""
    with pytest.raises(KeyBuildError, match=r"argument 'user', a value of type object.*ignore="):
        keys(profile)(object())


@pytest.mark.parametrize(
    ("key_spec", "message"),
    [
        ({"key": "user:{name}"}, "names 'name', which is not a parameter"),
        ({"tags": ["user:{name}"]}, "names 'name', which is not a parameter"),
        ({"ignore": ["name"]}, "ignore names 'name', which is not a parameter"),
    ],
)
def test_unknown_parameters_are_found_at_decoration(key_spec, message):
    """The error lists the known ones."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        keys(profile, **key_spec)
    assert "known: user, verbose, limit" in str(raised.value)


def test_decimals_are_taken_digit_by_digit():
    """Whatever their length, exponent, and the thread's context."""
    near = [
        Decimal("0.1234567890123456789012345678901"),
        Decimal("0.1234567890123456789012345678902"),
    ]
    assert canonical(near[0]) != canonical(near[1])
    with localcontext() as context:
        context.prec = 5
        assert len({canonical(one) for one in near}) == 2
    assert canonical(Decimal("0.50")) == canonical(Decimal("0.5"))
    assert canonical(Decimal("-0")) == canonical(0)
    assert canonical(Decimal("1e3")) == canonical(1000)
    assert canonical(Decimal("0.5")) == canonical(0.5)
    assert canonical(Decimal("0.1")) != canonical(0.1)  # which is a little more
    assert canonical(Decimal("-Infinity")) == canonical(float("-inf"))
    assert canonical(Decimal("0.5"), typed=True) != canonical(0.5, typed=True)
    odd = ["1e3000000", "-1e3000000", "sNaN", "NaN", "Infinity", "1e-3000000", "1" * 5000]
    assert len({canonical(Decimal(one)) for one in odd}) == len(odd)


@pytest.mark.parametrize(
    "number",
    [10**30 + 1, -(10**30) - 1, (10**30 + 1) * 10**5, 10**598 + 1],
    ids=["31 digits", "below zero", "zeros at the end", "599 digits"],
)
def test_a_whole_decimal_beyond_floats_is_its_number(number):
    """However its zeros are written; one of more digits is only itself, in the same way."""
    alike = [Decimal(number), Decimal(f"{number}.000"), Decimal(f"{number}000E-3")]
    assert {canonical(one) for one in alike} == {canonical(number)}
    longer = [Decimal(f"{number}E+600"), Decimal(f"{number}0E+599")]
    assert len({canonical(one) for one in longer}) == 1


def test_flags_without_a_name_have_a_value():
    """An empty flag is a flag too."""
    every = [Access(0), Access.READ, Access.WRITE, Access.READ | Access.WRITE]
    assert len({canonical(one) for one in every}) == 4
