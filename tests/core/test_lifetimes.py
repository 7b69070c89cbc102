"""A ttl, and any other length of time, in every form that a caller may pass."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.lifetimes import (
    DEFAULT,
    KEEP,
    MAX_SECONDS,
    lifetime,
    positive_seconds,
    seconds_or_zero,
    ttl_of_any_length,
)
from shardcache.errors import ConfigurationError

seconds = st.floats(min_value=-MAX_SECONDS, max_value=MAX_SECONDS) | st.integers(
    -(10**400), MAX_SECONDS
).filter(lambda number: number > -(10**300))


@given(seconds)
def test_seconds_stay_seconds(ttl):
    """A number above zero stays itself, as a float; any other expires at once."""
    given_back = lifetime(ttl, 60.0)
    assert type(given_back) is float
    assert given_back == (ttl if ttl > 0 else 0.0)


@given(st.timedeltas(max_value=timedelta(seconds=MAX_SECONDS)))
def test_a_timedelta_is_its_seconds(ttl):
    """A `timedelta` means the same as its seconds."""
    assert lifetime(ttl, None) == lifetime(ttl.total_seconds(), None)


@pytest.mark.parametrize("default", [None, 0.5, 300.0])
def test_a_missing_ttl_is_not_none(default):
    """`DEFAULT` is the client's own, `None` is no expiry."""
    assert lifetime(DEFAULT, default) == default
    assert lifetime(None, default) is None
    assert repr(DEFAULT) == "DEFAULT"


def test_keep_is_no_ttl_of_a_new_value():
    """The error says which call takes it."""
    with pytest.raises(TypeError, match="KEEP is for cas alone"):
        lifetime(KEEP, None)
    assert repr(KEEP) == "KEEP"


@pytest.mark.parametrize(
    "ttl",
    [math.nan, math.inf, -math.inf, 10**400, -(10**400), MAX_SECONDS + 1, timedelta(days=3651)],
    ids=lambda ttl: repr(ttl)[:20],
)
def test_impossible_ttls_are_refused(ttl):
    """NaN, infinities and more than ten years."""
    with pytest.raises(ValueError, match="ttl must be"):
        lifetime(ttl, None)


@pytest.mark.parametrize(
    ("ttl", "returned"),
    [
        (MAX_SECONDS, MAX_SECONDS),
        (MAX_SECONDS + 1, None),
        (10**400, None),
        (math.inf, None),
        (Decimal("1e9"), None),
        (Decimal("1.5"), Decimal("1.5")),
        (timedelta(days=3650), timedelta(days=3650)),
        (timedelta(days=3651), None),
        (-5, -5),
        (None, None),
        ("10" * 9, "10" * 9),
    ],
    ids=lambda ttl: repr(ttl)[:20],
)
def test_frameworks_ttls_are_of_any_length(ttl, returned):
    """Beyond the servers' limit it is no expiry; what is no number stays, so that it can be refused."""
    assert ttl_of_any_length(ttl) == returned


@pytest.mark.parametrize("ttl", [True, False, "60", b"60", [60], 1j], ids=repr)
def test_other_types_are_no_ttl(ttl):
    """The error names the type."""
    with pytest.raises(TypeError, match=f"not {type(ttl).__name__}"):
        lifetime(ttl, None)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, "must be above zero"),
        (-0.5, "must be above zero"),
        (timedelta(0), "must be above zero"),
        (timedelta(days=-1), "must be above zero"),
        (float("nan"), "must be above zero"),
        (float("inf"), "must be at most 10 seconds"),
        (10**400, "must be at most 10 seconds"),
        pytest.param(-(10**5000), "must be above zero", id="-huge"),
        (10.5, "must be at most 10 seconds"),
        (True, "must be seconds as a number"),
        ("1", "must be seconds as a number"),
        (None, "must be seconds as a number"),
    ],
)
def test_impossible_durations_are_refused(value, fault):
    """Only finite numbers above zero bound a wait; a bool is no number."""
    with pytest.raises(ConfigurationError) as caught:
        positive_seconds(value, 10)
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, timedelta()])
def test_zero_is_a_duration_where_it_has_a_meaning(zero):
    """Where none at all has a meaning; what is no number never has."""
    assert seconds_or_zero(zero, 10) == 0.0
    assert seconds_or_zero(2, 10) == 2.0
    for nothing in (None, "", False, []):
        with pytest.raises(ConfigurationError, match="must be seconds as a number"):
            seconds_or_zero(nothing, 10)


@pytest.mark.parametrize("value", [-1, timedelta(days=-1), float("nan")])
def test_the_error_says_where_zero_is_allowed(value):
    """It does not ask for a number above zero where zero is allowed."""
    assert seconds_or_zero(0, 10) == 0
    with pytest.raises(ConfigurationError) as caught:
        seconds_or_zero(value, 10)
    assert str(caught.value) == "must be zero or more"
