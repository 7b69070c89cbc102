"""The number that tells memcached how long a value lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.backends.expiry import memcached_exptime

DAYS_30 = 2_592_000
NOW = 1_800_000_000.4


@pytest.mark.parametrize(
    ("ttl", "number"),
    [
        (None, 0),
        (1e-9, 1),
        (1, 1),
        (1.2, 2),
        (DAYS_30, DAYS_30),
        (DAYS_30 - 0.5, DAYS_30),
        (DAYS_30 + 0.5, 1_800_000_001 + DAYS_30),
        (DAYS_30 + 1, 1_800_000_002 + DAYS_30),
        (315_360_000, 2_115_360_001),
        (400_000_000, 2**31 - 1),
    ],
)
def test_an_expiry_is_seconds_up_to_30_days_and_a_date_above(ttl, number):
    """A date beyond memcached's clock is no expiry."""
    assert memcached_exptime(ttl, lambda: NOW) == number


@given(st.floats(min_value=1e-6, max_value=315_360_000), st.floats(0, 2**31 - 315_360_002))
def test_no_value_vanishes_early(ttl, now):
    """Read as memcached reads it, a value lives as long as asked, or up to two seconds longer."""
    number = memcached_exptime(ttl, lambda: now)
    life = number if number <= DAYS_30 else number - now
    assert 0 < number < 2**31
    assert ttl - 1e-6 <= life <= ttl + 2
