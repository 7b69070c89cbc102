"""An entry says how old a value is, and how much longer it is fresh."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardcache.core.values.entries import CacheEntry, entry_of
from shardcache.core.values.flags import TEXT_FLAGS
from shardcache.core.values.freshness import Stored

PAYLOAD = (TEXT_FLAGS, b"x")


@pytest.mark.parametrize(
    ("now", "stale", "age", "remaining"),
    [
        (1000.0, False, 0.0, 10.0),
        (1004.0, False, 4.0, 6.0),
        (1010.0, True, 10.0, 0.0),
        (1015.0, True, 15.0, 0.0),
        # The clock of the process that stored it is ahead.
        (999.0, False, 0.0, 11.0),
    ],
)
def test_an_entry_has_its_age_and_what_remains(now, stale, age, remaining):
    """Neither is ever below zero."""
    stored = Stored(PAYLOAD, 1010.0, 0.5, 10.0)
    assert entry_of("x", stored, now, stale=stale) == CacheEntry("x", age, remaining, not stale)


@given(st.floats(0, 1e10))
def test_a_value_without_an_expiry_has_no_age(now):
    """What remains is infinite."""
    entry = entry_of("x", Stored(PAYLOAD), now, stale=False)
    assert entry == CacheEntry("x", None, math.inf, fresh=True)
