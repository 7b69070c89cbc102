"""The backend contract: counters."""

from __future__ import annotations

from typing import Any

import pytest

from shardcache import NotACounterError
from shardcache.testing.contract.base import ContractFixtures


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
