"""Numbers may be of any type that says it is a number."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from shardcache import CachePolicy, ConfigurationError, LockPolicy, Node, TimeoutPolicy
from shardcache.clients.locks import wait_seconds
from shardcache.core.lifetimes import lifetime
from shardcache.core.numeric import real, whole
from shardcache.settings import Settings
from shardcache.testing.driving import make_client


class Whole:
    """What numpy's whole numbers are to Python: no `int`, but with `__index__`."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


class Array:
    """What a numpy array is to Python: with `__index__`, which says no."""

    def __index__(self):
        raise TypeError("only a single whole number")


def test_whole_numbers_have_an_index():
    """Types other than `int` are taken by `__index__`; `bool` and fractions are not."""
    assert whole(Whole(7)) == whole(7) == 7
    assert type(whole(Whole(7))) is int
    for other in (True, 7.0, Decimal(7), "7", None, Array()):
        assert whole(other) is None


def test_numbers_of_any_type_are_floats():
    """`bool`, text and complex numbers are not numbers here."""
    for number in (2, 2.0, Whole(2), Decimal(2), Fraction(2)):
        assert real(number) == 2.0
        assert type(real(number)) is float
    for other in (True, "2", 2j, None, Array(), [2]):
        assert real(other) is None


def test_a_number_beyond_floats_is_infinite():
    """A signaling NaN is NaN."""
    assert real(10**400) == real(Fraction(10**400)) == real(Decimal("1e400")) == math.inf
    assert real(-(10**400)) == real(Whole(-(10**400))) == -math.inf
    assert math.isnan(real(Decimal("sNaN")))


def test_counters_count_by_any_whole_number(mode):
    """`delta` and `initial` may be of any type with `__index__`, and what comes back is an `int`."""
    client = make_client(mode, "memory://a")
    assert client.incr("n", Whole(2), initial=Whole(5), ttl=Whole(60)) == 5
    assert type(client.get("n")) is int
    assert client.incr("n", Whole(2)) == 7
    assert client.decr("n", delta=Whole(3)) == 4
    for odd in (True, 1.0, Decimal(1), "1"):
        with pytest.raises(TypeError, match=f"delta must be an int, not {type(odd).__name__}"):
            client.incr("n", odd)
        with pytest.raises(TypeError, match=f"initial must be an int, not {type(odd).__name__}"):
            client.incr("m", initial=odd)


@pytest.mark.parametrize("ttl", [Whole(60), Decimal(60), Decimal("60.0"), Fraction(60)])
def test_a_ttl_is_any_number(mode, ttl):
    """A ttl in seconds may be of any type of number."""
    client = make_client(mode, "memory://a", default_ttl=ttl)
    assert lifetime(ttl, None) == 60.0
    assert client.set("k", 1, ttl=ttl)
    assert client.touch("k", ttl)
    assert client.set_many({"k": 1}, ttl=ttl) == []


@pytest.mark.parametrize("number", [Whole(1), Decimal(1), Fraction(1)])
def test_settings_and_policies_take_any_number(number):
    """Lengths of time and weights may be of any type of number."""
    assert TimeoutPolicy(number, number) == TimeoutPolicy(1.0, 1.0)
    assert LockPolicy(ttl=number, max_hold=number) == LockPolicy(ttl=1.0, max_hold=1.0)
    policy = CachePolicy(ttl=number, wait=number, stale=number, early=number)
    assert policy == CachePolicy(ttl=1.0, wait=1.0, stale=1.0, early=1.0)
    assert type(policy.early) is float
    assert Node("memory://a", weight=number) == Node("memory://a", weight=1.0)
    assert type(Node("memory://a", weight=number).weight) is float
    settings = Settings.of(nodes="memory://a", timeout=number, default_ttl=number)
    assert settings == Settings.of(nodes="memory://a", timeout=1.0, default_ttl=1.0)


def test_sizes_may_be_any_whole_number(mode):
    """Of a pool, and of a list of nodes."""
    assert Settings.of(nodes="memory://a", pool_size=Whole(4)).pool_size == 4
    client = make_client(mode, ["memory://a", "memory://b"])
    assert len(client.nodes_for("k", Whole(2))) == 2


def test_zero_may_be_of_any_type():
    """One try of a lock, and no stale time, may be any type's zero."""
    assert CachePolicy(ttl=1, stale=Whole(0), wait=Decimal(0)) == CachePolicy(
        ttl=1, stale=0, wait=0
    )
    for zero in (Whole(0), Decimal(0), timedelta(), 0):
        assert wait_seconds(zero) == 0.0


@pytest.mark.parametrize("odd", [True, "1", 1j, [1], Array()], ids=lambda each: type(each).__name__)
def test_other_types_are_refused(odd):
    """`bool`, text and the rest, where a number is needed."""
    with pytest.raises(ConfigurationError, match="number"):
        TimeoutPolicy(odd)
    with pytest.raises(ConfigurationError, match="number"):
        Settings.of(nodes="memory://a", pool_size=odd)
    with pytest.raises(ConfigurationError, match="number"):
        Node("memory://a", weight=odd)
    with pytest.raises(TypeError, match="number"):
        lifetime(odd, None)


def test_too_long_a_ttl_is_named_in_plain_digits():
    """The error for a ttl beyond ten years quotes the number."""
    with pytest.raises(ValueError, match=r"ten years \(315360000 s\), not 315360001 s$"):
        lifetime(315_360_001, None)
    with pytest.raises(ConfigurationError, match=r"at most 315360000 seconds"):
        Settings.of(nodes="memory://a", default_ttl=315_360_001)
