"""A ttl in every form that a caller may pass."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.lifetimes import DEFAULT, MAX_SECONDS, lifetime

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


@pytest.mark.parametrize(
    "ttl",
    [math.nan, math.inf, -math.inf, 10**400, -(10**400), MAX_SECONDS + 1, timedelta(days=3651)],
    ids=lambda ttl: repr(ttl)[:20],
)
def test_impossible_ttls_are_refused(ttl):
    """NaN, infinities and more than ten years."""
    with pytest.raises(ValueError, match="ttl must be"):
        lifetime(ttl, None)


@pytest.mark.parametrize("ttl", [True, False, "60", b"60", [60], 1j], ids=repr)
def test_other_types_are_no_ttl(ttl):
    """The error names the type."""
    with pytest.raises(TypeError, match=f"not {type(ttl).__name__}"):
        lifetime(ttl, None)
