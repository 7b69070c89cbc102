"""The backend contract: counters."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shardcache import NotACounterError
from shardcache.core.capabilities import AGES
from shardcache.core.commands import GetExpiry, Gets, IncrSigned
from shardcache.operations.cluster.members import Member
from shardcache.testing.contract.base import ContractFixtures, requires


class CounterContract(ContractFixtures):
    """Counters count alike on every server."""

    def test_counters(self, client: Any) -> None:
        """Counters count, stop at 0, and are created only with an initial value."""
        assert client.incr("n") is None
        assert client.get("n") is None
        assert client.incr("n", 5, initial=10) == 10
        assert client.incr("n", 5) == 15
        assert client.get("n") == 15
        assert client.decr("n", 6) == 9
        assert client.decr("n", 100) == 0
        assert client.get("n") == 0
        assert client.decr("absent", initial=3) == 3
        assert client.incr("zero", 0, initial=0) == 0

    def test_a_stored_int_is_a_counter(self, client: Any) -> None:
        """`incr` counts on from a number that `set` stored, up to 2**63 - 1."""
        client.set("n", 41)
        assert client.incr("n") == 42
        client.set("n", 2**63 - 2)
        assert client.incr("n") == 2**63 - 1
        assert client.get("n") == 2**63 - 1

    def test_a_counter_shrinks_in_digits(self, client: Any) -> None:
        """100 minus 1 is 99, without a trailing space."""
        client.set("n", 100)
        assert client.decr("n") == 99
        assert client.get("n") == 99
        assert client.incr("n") == 100

    @pytest.mark.parametrize("value", ["text", "12x", b"\x00", -1, 1.5, [1], 2**70], ids=repr)
    def test_other_values_are_not_counters(self, client: Any, value: Any) -> None:
        """A value that is not a counter raises, and stays unchanged."""
        client.set("k", value)
        with pytest.raises(NotACounterError):
            client.incr("k")
        with pytest.raises(NotACounterError):
            client.decr("k", initial=1)
        assert client.get("k") == value

    def test_a_counter_past_its_range_is_refused(self, client: Any) -> None:
        """Above 2**63 - 1 servers count differently, so every count is refused.

        The counter that is left differs between servers, and so does the result of `decr` on it.
        """
        for value, delta in (
            (2**63 - 1, 1),
            (2**63 - 1, 2**63 - 1),
            (2**64 - 1, 1),
            (2**64 - 1, 9),
        ):
            client.set("n", value)
            with pytest.raises(NotACounterError):
                client.incr("n", delta)

    @pytest.mark.parametrize("delta", [-1, 2**63, 1.0, True, "1"], ids=repr)
    def test_invalid_deltas_are_refused(self, client: Any, delta: Any) -> None:
        """A delta is a whole number from 0 to 2**63 - 1."""
        for count in (client.incr, client.decr):
            with pytest.raises((ValueError, TypeError), match="delta"):
                count("n", delta)

    @pytest.mark.parametrize("floor", [1, -1, True, False, 0.5, "0"], ids=repr)
    def test_a_floor_is_zero_or_none(self, client: Any, floor: Any) -> None:
        """Another floor is refused, and nothing is counted."""
        for count in (client.incr, client.decr):
            with pytest.raises(ValueError, match="floor must be 0, or None"):
                count("n", initial=1, floor=floor)
        assert client.get("n") is None


class SignedCounterContract(ContractFixtures):
    """Counters without a floor count below zero."""

    @pytest.fixture
    def count_below_zero(self, member: Member) -> None:
        """Skip the test for a backend that cannot do so."""
        if not (IncrSigned in member.supports or {Gets, GetExpiry} <= member.supports):
            pytest.skip("the backend cannot count below zero")

    @pytest.mark.usefixtures("count_below_zero")
    def test_counters_below_zero(self, client: Any) -> None:
        """They cross zero in both directions, and read as the number that they are."""
        assert client.decr("n", floor=None) is None
        assert client.get("n") is None
        assert client.decr("n", 5, initial=-3, floor=None) == -3
        assert client.decr("n", 5, floor=None) == -8
        assert client.get("n") == -8
        assert client.incr("n", 5, floor=None) == -3
        assert client.incr("n", 10, floor=None) == 7
        assert client.incr("n", 1, floor=None) == 8
        assert client.decr("n", 0, floor=None) == 8
        assert client.decr("n", 1, floor=None) == 7
        assert client.get("n") == 7
        assert client.incr("n") == 8  # a counter of either kind, while it is not negative
        client.set("n", -100)
        assert client.incr("n", 99, floor=None) == -1
        assert client.incr("n", 1, floor=None) == 0
        assert client.get("n") == 0

    @pytest.mark.usefixtures("count_below_zero")
    def test_a_negative_number_is_no_counter_with_a_floor(self, client: Any) -> None:
        """It raises and stays unchanged, whichever way it should count."""
        client.decr("n", initial=-3, floor=None)
        for count in (client.incr, client.decr):
            with pytest.raises(NotACounterError):
                count("n", 5)
        assert client.get("n") == -3

    @pytest.mark.usefixtures("count_below_zero")
    def test_a_shrinking_number_has_no_blanks(self, client: Any) -> None:
        """A number that has lost a digit on its server counts on."""
        client.set("n", 1000)
        assert client.decr("n", 950) == 50
        assert client.decr("n", 60, floor=None) == -10
        assert client.get("n") == -10

    @pytest.mark.usefixtures("count_below_zero")
    def test_signed_counters_stay_within_64_bits(self, client: Any) -> None:
        """A sum beyond them is refused, and the counter stays."""
        client.set("n", 2**63 - 2)
        assert client.incr("n", 1, floor=None) == 2**63 - 1
        with pytest.raises(NotACounterError):
            client.incr("n", 1, floor=None)
        assert client.get("n") == 2**63 - 1
        assert client.decr("n", 2**63 - 1, floor=None) == 0
        assert client.decr("n", 2**63 - 1, floor=None) == 1 - 2**63
        assert client.decr("n", 1, floor=None) == -(2**63)
        with pytest.raises(NotACounterError):
            client.decr("n", 1, floor=None)
        assert client.get("n") == -(2**63)
        assert client.decr("m", initial=-(2**63), floor=None) == -(2**63)
        with pytest.raises(ValueError, match="initial"):
            client.decr("o", initial=-(2**63) - 1, floor=None)

    @pytest.mark.usefixtures("count_below_zero")
    @pytest.mark.parametrize(
        "value", ["text", "-x", "", b"\x00", b"--1", 1.5, [1], 2**63, -(2**63) - 1], ids=repr
    )
    def test_other_values_are_not_signed_counters(self, client: Any, value: Any) -> None:
        """A value that is not a counter raises, and stays unchanged."""
        client.set("k", value)
        with pytest.raises(NotACounterError):
            client.incr("k", floor=None)
        with pytest.raises(NotACounterError):
            client.decr("k", initial=1, floor=None)
        assert client.get("k") == value

    @requires(AGES)
    @pytest.mark.usefixtures("count_below_zero")
    def test_counting_below_zero_keeps_the_expiry(self, client: Any) -> None:
        """Of a counter with one, and of a counter without."""
        client.decr("n", initial=-1, ttl=100, floor=None)
        client.decr("n", ttl=600, floor=None)
        client.incr("n", 5, ttl=600, floor=None)
        assert 70 < client.ttl("n") <= 101.5
        client.decr("kept", initial=-1, floor=None)
        client.decr("kept", ttl=600, floor=None)
        assert client.ttl("kept") == math.inf
