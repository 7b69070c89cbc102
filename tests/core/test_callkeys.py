"""Equal calls have equal keys, in every process, and no two others share one."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from enum import Enum, Flag
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.clients.naming import CallKeys, Naming
from shardcache.core.callkeys import UnkeyableError, canonical, digest
from shardcache.errors import ConfigurationError, KeyBuildError

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner),
    ),
    max_leaves=8,
)


class Colour(Enum):
    """An enum."""

    RED = 1
    BLUE = 2


class User:
    """Something with a key of its own."""

    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        """Give what tells users apart."""
        return self.number


def typed(value):
    """Give a value with the types of all its parts, to compare by."""
    if isinstance(value, (list, tuple)):
        return type(value), [typed(each) for each in value]
    if isinstance(value, dict):
        return dict, sorted((repr(typed(key)), repr(typed(value[key]))) for key in value)
    return type(value), repr(value)


@given(values, values)
def test_no_two_values_share_their_bytes(one, other):
    """Typed bytes are equal exactly for values that are equal, types included."""
    same = canonical(one, typed=True) == canonical(other, typed=True)
    assert same == (typed(one) == typed(other))


@given(values)
def test_equal_numbers_are_one_unless_typed(value):
    """`1`, `1.0`, `True` and `Decimal(1)` are one argument, as they are one key of a dict."""
    assert canonical([value]) == canonical([value])
    assert len({canonical(one) for one in (1, 1.0, True, Decimal(1), Decimal("1.00"))}) == 1
    assert len({canonical(one, typed=True) for one in (1, 1.0, True, Decimal(1))}) == 4


def test_what_has_no_order_has_one_here():
    """Sets and dicts are the same whatever order they were made in."""
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({"x", "y", "z"}) == canonical({"z", "y", "x"})
    assert canonical({1: "a"}) != canonical({"1": "a"})
    assert canonical(frozenset({1})) == canonical({1})


def test_everything_that_may_be_stored_may_be_an_argument():
    """And enums, classes, and what has a key of its own."""
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
def test_what_has_no_bytes_is_refused(value):
    """Nothing is taken by its address, its `repr` or its pickle."""
    with pytest.raises(UnkeyableError, match="a value of type"):
        canonical(value)


def test_what_holds_itself_is_refused():
    """There is an end to nesting."""
    endless = []
    endless.append(endless)
    with pytest.raises(UnkeyableError, match="nested"):
        canonical(endless)


def test_keys_are_the_same_in_every_process():
    """Whatever the hash seed."""
    program = (
        "from shardcache.core.callkeys import canonical, digest;"
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


def keys(function, **naming):
    """Give a way to ask for the key of a call."""
    made = CallKeys(function, Naming(**naming))
    return lambda *args, **kwargs: made.key(args, kwargs, "")


def profile(user, verbose=False, *, limit=10):  # noqa: FBT002
    """Stand for any function."""
    return user, verbose, limit


def test_however_a_call_is_written_it_has_one_key():
    """Positions, names and defaults make no difference."""
    key = keys(profile)
    assert len({key(1), key(user=1), key(1, False), key(1, verbose=False, limit=10)}) == 1  # noqa: FBT003
    assert len({key(1), key(2), key(1, True), key(1, limit=11)}) == 4  # noqa: FBT003
    pair = keys(lambda a, b=2: (a, b), namespace="pair")
    assert pair(1, 23) != pair(12, 3)


def test_a_simple_call_has_the_key_of_its_long_form():
    """The short way to a key gives the same as the long one."""

    def simple(a, b=2, c=3):
        return a, b, c

    key = keys(simple)
    assert key(1) == key(a=1) == key(1, 2) == key(1, 2, 3) == key(1, c=3)
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        key()
    with pytest.raises(TypeError, match="too many positional arguments"):
        key(1, 2, 3, 4)


def test_variadic_arguments_are_part_of_it():
    """Also what comes by `*args` and `**kwargs`, whose order does not matter."""

    def variadic(*args, **kwargs):
        return args, kwargs

    key = keys(variadic)
    assert key(x=1, y=2) == key(y=2, x=1)
    assert len({key(), key(1), key(1, 2), key((1, 2)), key(x=1), key(y=1)}) == 6


def test_what_is_ignored_makes_no_difference():
    """It may then be of any type."""
    key = keys(profile, ignore=("user",))
    assert key(object()) == key(object())
    assert key(object()) != key(object(), limit=3)


def test_templates_and_functions_make_keys():
    """The namespace and the version stand in front of them all the same."""
    assert keys(profile, key="user:{user}", namespace="app", version=3)(7) == "app:3:user:7"
    assert keys(profile, key="{user.number}", namespace="app")(User(9)) == "app:0:9"
    assert keys(profile, key=lambda user: f"u{user}", namespace="app")(7) == "app:0:u7"
    assert keys(profile, key=lambda user: b"u%d" % user, namespace="app")(7) == b"app:0:u7"
    with pytest.raises(KeyBuildError, match="which is no str or bytes"):
        keys(profile, key=lambda user: user)(7)


def test_an_argument_without_a_key_is_named():
    """With the ways out."""
    with pytest.raises(KeyBuildError, match=r"argument 'user', a value of type object.*ignore="):
        keys(profile)(object())


@pytest.mark.parametrize(
    ("naming", "message"),
    [
        ({"key": "user:{name}"}, "names 'name', which is no parameter"),
        ({"tags": ["user:{name}"]}, "names 'name', which is no parameter"),
        ({"ignore": ["name"]}, "ignore names 'name', which is no parameter"),
    ],
)
def test_names_of_no_parameter_are_found_at_decoration(naming, message):
    """And those known are listed."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        keys(profile, **naming)
    assert "known: user, verbose, limit" in str(raised.value)


def test_decimals_are_taken_digit_by_digit():
    """Whatever their length, their exponent, and the context of the thread."""
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
    odd = ["1e3000000", "-1e3000000", "sNaN", "NaN", "Infinity", "1e-3000000", "1" * 5000]
    assert len({canonical(Decimal(one)) for one in odd}) == len(odd)


def test_flags_without_a_name_have_a_value():
    """An empty flag is a flag as well."""

    class Access(Flag):
        READ = 1
        WRITE = 2

    every = [Access(0), Access.READ, Access.WRITE, Access.READ | Access.WRITE]
    assert len({canonical(one) for one in every}) == 4
