"""The options of `cached`: what they decide, and how a wrong one is named."""

from __future__ import annotations

import functools
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache import CachePolicy, ConfigurationError, LockPolicy
from shardcache.core.cache_policy import (
    DEFAULT_LOCK,
    check_options,
    describe_function,
    lifetime_of,
    policy_of,
    resolve_ttl,
)
from shardcache.core.lifetimes import DEFAULT, MAX_SECONDS

SHORT = LockPolicy(ttl=1)
# Each call, with an option that it has besides those of a policy.
CALLS = {
    "cached": "ignore",
    "cached_many": "policy",
    "get_or_set": "key",
    "get_or_set_many": "keys",
}


async def later(result):
    """Return a ttl too late."""
    return result


class Later:
    """An object that is called, and answers later."""

    async def __call__(self, result):
        """Return the result."""
        return result


def nothing():
    """Take no result."""


@functools.wraps(nothing)
def wrapped(*_):
    """Take more than the wrapped function."""
    return 60


class Holder:
    """A class whose functions are passed around."""

    @classmethod
    def of_class(cls):
        """Stand for a class method."""

    @staticmethod
    def static():
        """Stand for a static method."""

    def method(self):
        """Stand for a method."""


@pytest.mark.parametrize(
    ("lock", "by_majority", "policy"),
    [
        (False, False, DEFAULT_LOCK),
        ("local", False, DEFAULT_LOCK),
        ("shard", False, DEFAULT_LOCK),
        (True, True, DEFAULT_LOCK),
        (SHORT, True, SHORT),
    ],
)
def test_a_lock_is_taken_on_a_majority_or_not(lock, by_majority, policy):
    """`True` and a policy mean a majority of nodes; each kind has a policy for its length."""
    chosen = CachePolicy(ttl=1, lock=lock)
    assert chosen.quorum is by_majority
    assert chosen.locking is policy


def test_the_kinds_of_errors_are_a_tuple():
    """One type may be given without one."""
    assert CachePolicy(ttl=1).error_kinds == ()
    assert CachePolicy(ttl=1, cache_errors=OSError).error_kinds == (OSError,)
    assert CachePolicy(ttl=1, cache_errors=(OSError, KeyError)).error_kinds == (OSError, KeyError)


@pytest.mark.parametrize(
    ("options", "ages", "served_after"),
    [
        ({}, False, 0.0),
        ({"early": 1}, True, 0.0),
        ({"stale": timedelta(minutes=1)}, True, 60.0),
        ({"stale": 60, "stale_if_error": None}, True, 60.0),
        ({"stale_if_error": 30}, True, 30.0),
        ({"stale": 60, "stale_if_error": 30}, True, 60.0),
        ({"stale": 60, "stale_if_error": 0}, True, 60.0),
    ],
)
def test_a_value_is_stored_with_its_age_where_that_matters(options, ages, served_after):
    """That is, where it may be refreshed early, or served after its ttl."""
    policy = CachePolicy(ttl=1, **options)
    assert policy.ages is ages
    assert policy.served_after == served_after


@given(st.floats(0, MAX_SECONDS) | st.integers(0, MAX_SECONDS))
def test_lengths_are_kept_as_seconds(length):
    """Whether given as a number or as a `timedelta`."""
    span = timedelta(seconds=length)
    policy = CachePolicy(ttl=length, wait=length, stale=span, error_backoff=span)
    assert (policy.ttl, policy.wait) == (length, length)
    assert policy.stale == policy.error_backoff == span.total_seconds()
    assert {type(policy.seconds(name)) for name in ("ttl", "wait", "stale")} == {float}


@pytest.mark.parametrize(
    ("options", "result", "seconds"),
    [
        ({"ttl": lambda _: None}, "x", None),
        ({"ttl": lambda _: timedelta(minutes=1)}, "x", 60.0),
        ({"ttl": lambda _: math.inf}, "x", float(MAX_SECONDS)),
        ({"ttl": lambda _: 10**20}, "x", float(MAX_SECONDS)),
        ({"ttl": lambda _: timedelta(days=-1)}, "x", 0.0),
        ({"ttl": wrapped}, "x", 60.0),
        ({"ttl": 10}, None, 10.0),
        ({"ttl": None, "none_ttl": 2}, None, 2.0),
        ({"ttl": 10, "none_ttl": 2}, "x", 10.0),
        ({"ttl": 10, "cache_none": False, "none_ttl": 2}, None, 0.0),
        ({"ttl": 10, "cache_none": False}, 0, 10.0),
        ({"ttl": 10, "condition": lambda result: result > 1}, 1, 0.0),
        ({"ttl": 10, "condition": lambda result: result > 1}, 2, 10.0),
        ({"ttl": 0}, "x", 0.0),
    ],
)
def test_a_result_is_kept_for_this_long(options, result, seconds):
    """0 is not at all, `None` without an expiry; a computed ttl is cut to ten years."""
    assert lifetime_of(CachePolicy(**options), result) == seconds


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"jitter": -0.1}, "jitter must be from 0 up to 1, not -0.1"),
        ({"jitter": "1"}, "jitter must be from 0 up to 1, not '1'"),
        ({"early": 1000.5}, "early must be from 0 to 1000, not 1000.5"),
        ({"early": math.nan}, "early must be from 0 to 1000, not nan"),
        ({"early": None}, "early must be from 0 to 1000, not None"),
        ({"lock": 1}, "lock must be True, False, 'shard', 'local' or a LockPolicy, not 1"),
        ({"on_error": "miss"}, "on_error must be 'compute' or 'raise', not 'miss'"),
        ({"stale": MAX_SECONDS + 1}, "stale must be at most 315360000 seconds"),
        ({"none_ttl": 0}, "none_ttl must be above zero"),
        ({"error_ttl": 0}, "error_ttl must be above zero"),
        ({"cache_errors": ("x",)}, "cache_errors must be types of exceptions, not 'x'"),
        ({"cache_errors": 7}, "cache_errors must be types of exceptions, not 7"),
        ({"cache_errors": KeyboardInterrupt}, "cache_errors must be types of exceptions, not type"),
        ({"condition": 7}, "condition must be a function of the result, not 7"),
        (
            {"condition": later},
            "condition must be a plain function of the result, not the async def later()",
        ),
        ({"ttl": Later()}, "ttl must be a plain function of the result, not the async def Later"),
    ],
)
def test_a_bad_option_is_quoted(options, fault):
    """With what it must be."""
    with pytest.raises(ConfigurationError) as caught:
        CachePolicy(**{"ttl": 1, **options})
    assert caught.value.faults == (f"CachePolicy: {fault}",)


@pytest.mark.parametrize("name", ["ttl", "condition"])
def test_a_function_that_takes_no_result_is_refused(name):
    """What is called is asked, not what it wraps, and a class without a signature is taken."""
    with pytest.raises(
        ConfigurationError, match=rf"CachePolicy: {name} must take .* nothing\(\) does"
    ):
        CachePolicy(**{"ttl": 1, name: nothing})
    for function in (wrapped, len, int, dict, max, bool):
        assert getattr(CachePolicy(**{"ttl": 1, name: function}), name) is function


def test_every_fault_is_listed():
    """One error for all, in a fixed order."""
    with pytest.raises(ConfigurationError) as caught:
        CachePolicy(ttl="x", wait=-1, lock="all", jitter=2, cache_errors=(int, OSError, "x"))
    assert [fault.split()[1] for fault in caught.value.faults] == [
        "wait",
        "ttl",
        "lock",
        "jitter",
        "cache_errors",
        "cache_errors",
    ]


def test_unknown_options_are_named_with_the_known_ones():
    """As Python does for a misspelt keyword argument, by the name of the call."""
    check_options({"stale": 5, "lock": True}, "cached")
    check_options({"ttl": 1}, "cached_many")
    for call, own in CALLS.items():
        with pytest.raises(TypeError) as caught:
            check_options({"stale": 5, "stael": 5}, call)
        known = str(caught.value).partition(
            f"{call}() got an unexpected keyword argument 'stael' (known: "
        )[2]
        assert {own, "stale_if_error"} <= set(known.rstrip(")").split(", "))


@pytest.mark.parametrize("call", CALLS)
def test_every_fault_is_named_by_its_call(call):
    """All at once; a policy that is created by itself has its own name."""
    options = {"stale": -1, "jitter": 2.0}
    with pytest.raises(ConfigurationError) as caught:
        policy_of(call, 60, options)
    assert caught.value.faults == (
        f"{call}: stale must be zero or more",
        f"{call}: jitter must be from 0 up to 1, not 2.0",
    )
    with pytest.raises(ConfigurationError, match=r"^CachePolicy: stale must be zero or more$"):
        CachePolicy(ttl=60, stale=-1)


@pytest.mark.parametrize("lock", ["shrad", True, LockPolicy(), 0, []])
def test_many_keys_are_offered_no_lock_that_they_refuse(lock):
    """Nor is another fault forgotten for that one."""
    with pytest.raises(ConfigurationError) as caught:
        policy_of("get_or_set_many", 60, {"lock": lock, "cache_errors": KeyError, "stale": -1})
    locks, errors, stale = caught.value.faults
    assert locks.startswith("get_or_set_many: lock must be False, 'local' or 'shard', not ")
    assert errors.startswith("get_or_set_many: cache_errors is not for many keys")
    assert stale == "get_or_set_many: stale must be zero or more"
    assert policy_of("get_or_set_many", 60, {"lock": "shard"}).lock == "shard"


def test_the_ttl_comes_by_position_or_by_name():
    """`DEFAULT` stands for one that was left out."""
    assert resolve_ttl(DEFAULT, 5, "cached") == 5
    assert resolve_ttl(DEFAULT, DEFAULT, "cached") is DEFAULT
    assert resolve_ttl(5, DEFAULT, "cached") == 5
    assert resolve_ttl(None, DEFAULT, "cached") is None
    with pytest.raises(ConfigurationError, match="cached: ttl is given twice, 5 and None"):
        resolve_ttl(5, None, "cached")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nothing, r"nothing\(\)"),
        (Holder, "class Holder"),
        (vars(Holder)["of_class"], r"Holder.of_class\(\)"),
        (vars(Holder)["static"], r"Holder.static\(\)"),
    ],
)
def test_a_decorator_without_parentheses_is_known_from_a_ttl(function, name):
    """The error names the function, and the decorator as it was written."""
    with pytest.raises(ConfigurationError, match=rf"{name} was given .* write @c\.cached\(ttl=…\)"):
        resolve_ttl(function, DEFAULT, "c.cached")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nothing, "nothing()"),
        (Holder().method, "Holder.method()"),
        (Holder, "class Holder"),
        (functools.partial(nothing), "partial"),
        (type("Odd", (), {"__qualname__": "Odd"})(), "Odd"),
        ("redis://:p@h", "a URL"),
        (7, "7"),
    ],
)
def test_an_error_names_a_function_by_its_path(function, name):
    """What has none is quoted as any other value."""
    assert describe_function(function) == name
