"""The backend contract: when values expire."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from shardcache.core.capabilities import CAS
from shardcache.testing.contract.base import ContractFixtures, requires
from shardcache.testing.waiting import eventually


class ExpiryContract(ContractFixtures):
    """A ttl means the same everywhere."""

    @requires(CAS)
    @pytest.mark.parametrize("ttl", [0, -1, -0.5, timedelta(seconds=-3)], ids=repr)
    def test_a_ttl_of_zero_or_less_deletes(self, client: Any, ttl: Any) -> None:
        """A ttl of zero or less deletes the key."""
        client.set_many({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
        assert client.set("a", "x", ttl=ttl) is True
        assert client.set_many({"b": "x"}, ttl=ttl) == []
        assert client.touch("c", ttl) is True
        assert client.replace("d", "x", ttl=ttl) is True
        _, token = client.gets("e")
        assert client.cas("e", "x", token, ttl=ttl) is True
        assert client.add("f", "x", ttl=ttl) is True
        assert client.incr("g", initial=5, ttl=ttl) == 5
        assert client.get_many(list("abcdefg")) == {}
        client.set("h", 1)
        assert client.add("h", "x", ttl=ttl) is False
        assert client.get("h") == 1  # an `add` never touches what is there

    @pytest.mark.parametrize(
        "ttl", [1000, 90.5, 2_592_000, 2_592_001, 5_000_000, timedelta(days=3650), None], ids=repr
    )
    def test_long_ttls_do_not_expire_early(self, client: Any, ttl: Any) -> None:
        """No server's own reading of an expiry removes a value early."""
        assert client.set("k", 1, ttl=ttl) is True
        assert client.get("k") == 1
        assert client.touch("k", ttl) is True
        assert client.get("k") == 1

    def test_a_ttl_below_a_second_is_not_zero(self, client: Any) -> None:
        """A value with a ttl of half a second is stored, however short it then lives."""
        # memcached's next tick may take the value at once: one of the tries comes before it.
        tries = (client.set("k", 1, ttl=0.5) and client.get("k") == 1 for _ in range(100))
        assert any(tries)

    @pytest.mark.parametrize("ttl", [math.nan, math.inf, 315_360_001, "60", True], ids=repr)
    def test_invalid_ttls_are_refused(self, client: Any, ttl: Any) -> None:
        """An invalid ttl raises, and nothing is stored."""
        with pytest.raises((ValueError, TypeError)):
            client.set("k", 1, ttl=ttl)
        assert client.get("k") is None

    def test_values_expire(self, client: Any) -> None:
        """A value expires after its ttl, whichever call set it."""
        client.set("set", 1, ttl=0.3)
        client.add("add", 1, ttl=0.3)
        client.set_many({"many": 1}, ttl=0.3)
        client.set("touched", 1)
        client.touch("touched", 0.3)
        client.incr("made", initial=1, ttl=0.3)
        client.set("kept", 1, ttl=60)
        names = ["set", "add", "many", "touched", "made", "kept"]
        # memcached counts whole seconds by a clock that ticks once a second.
        eventually(lambda: client.get_many(names) == {"kept": 1}, within=10)

    def test_counting_keeps_the_expiry(self, client: Any) -> None:
        """`incr` does not change the expiry."""
        client.incr("n", initial=1, ttl=1)
        client.incr("n", ttl=600)
        eventually(lambda: client.get("n") is None, within=10)

    def test_touch_none_removes_the_expiry(self, client: Any) -> None:
        """A value touched with `None` outlives its former ttl."""
        client.set("kept", 1, ttl=2)
        client.set("gone", 1, ttl=2)
        assert client.touch("kept", None) is True
        assert client.touch("missing", None) is False
        eventually(lambda: client.get("gone") is None, within=10)
        assert client.get("kept") == 1
