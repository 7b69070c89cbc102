"""A timeout of cachelib means what its users mean by it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from shardcache_flask.timeouts import seconds_to_live


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (60, 60.0),
        (0.5, 0.5),
        (True, 1.0),
        ("300", 300.0),
        (Decimal("1.5"), 1.5),
        (timedelta(minutes=2), 120.0),
        (-1, 0.0),
        (timedelta(seconds=-1), 0.0),
        (-(10**400), 0.0),
    ],
)
def test_seconds_in_any_form(timeout: object, seconds: float):
    """Numbers, texts of numbers and `timedelta`; what is below zero is over."""
    assert seconds_to_live(timeout) == seconds


@pytest.mark.parametrize("timeout", [0, 0.0, "0", timedelta(0), 10**9, 10**400, float("inf")])
def test_no_expiry(timeout: object):
    """Zero, and what is longer than ten years."""
    assert seconds_to_live(timeout) is None


@pytest.mark.parametrize("timeout", [None, "soon", float("nan"), [60], object()])
def test_anything_else_is_refused(timeout: object):
    """With the value in the error, for the one who reads the log."""
    with pytest.raises(TypeError, match="timeout must be seconds as a number, or a timedelta, not"):
        seconds_to_live(timeout)
