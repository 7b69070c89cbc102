"""The backend contract: how long values live, and stores that keep their expiry."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from shardcache import KEEP
from shardcache.core.capabilities import AGES, CAS, STUBS
from shardcache.core.commands import CasKeep, GetAged, GetExpiry, GetOrStub, Peek, Set
from shardcache.core.values.flags import is_mark
from shardcache.operations.cluster.members import Member
from shardcache.testing.contract.base import NAME, VALUE, Ask, ContractFixtures, requires
from shardcache.testing.waiting import eventually

ROUNDED = 1.5  # seconds by which a server that counts whole ones may be off, and a call takes
SLOW = 30.0  # seconds that the calls of a test may take
SKEW = 3600.0  # seconds by which the clock of a server may differ, to which memcached needs dates
MONTH = 30 * 24 * 3600  # seconds; memcached is sent longer expiries as dates


def _is_left(left: float, ttl: float | None) -> bool:
    """Return whether a value that was stored a moment ago with this ttl has these seconds left."""
    if ttl is None:
        return left == math.inf
    skew = SKEW if ttl > MONTH else 0.0
    return ttl - SLOW - skew < left <= ttl + ROUNDED + skew


class AgeContract(ContractFixtures):
    """A client knows how long a value lives, and that a value exists without reading it."""

    @requires(AGES)
    @pytest.mark.parametrize("ttl", [50, 3_000_000, 300_000_000, None], ids=repr)
    def test_an_aged_read_has_the_seconds_left(self, ask: Ask, ttl: float | None) -> None:
        """Of a value with an expiry, and infinite ones of a value without."""
        assert ask(GetAged(NAME)) is None
        assert ask(Peek(NAME)) is None
        ask(Set(NAME, VALUE, ttl))
        for command in (GetAged(NAME), Peek(NAME)):
            (flags, data), left = ask(command)
            assert (flags, data) == VALUE or (type(command) is Peek and flags == VALUE[0])
            assert _is_left(left, ttl)

    @requires(AGES)
    def test_a_ttl_is_that_of_the_last_call_that_set_one(self, client: Any) -> None:
        """Whether it stored the value or only its expiry."""
        assert client.ttl("k") is None
        changes: tuple[tuple[float | None, Callable[[], Any]], ...] = (
            (100, lambda: client.set("k", 1, ttl=100)),
            (200, lambda: client.touch("k", 200)),
            (200, lambda: client.incr("k", ttl=300)),
            (None, lambda: client.set_many({"k": [1]})),
            (400, lambda: client.replace("k", "text", ttl=400)),
        )
        for ttl, change in changes:
            assert change() is not False
            assert _is_left(client.ttl("k"), ttl)
        client.delete("k")
        assert client.ttl("k") is None

    @pytest.mark.parametrize(
        "value", [None, 0, "", b"", "text", [1], b"v" * 100_000], ids=lambda value: repr(value)[:9]
    )
    def test_every_value_exists(self, client: Any, value: Any) -> None:
        """What `get` finds exists, whatever it is; a missing key does not."""
        assert client.exists("k") is False
        client.set("k", value)
        assert client.exists("k") is True
        client.delete("k")
        assert client.exists("k") is False

    @requires(AGES)
    def test_an_expired_value_is_gone(self, client: Any) -> None:
        """It has no seconds left, not even zero of them."""
        client.set("k", 1, ttl=0.3)
        eventually(lambda: not client.exists("k"), within=10)
        assert client.ttl("k") is None

    @requires(AGES, CAS, STUBS)
    def test_a_stub_does_not_exist(self, client: Any, ask: Ask) -> None:
        """While a value is being recomputed, its key is missing."""
        name = client._cluster.keys.canonical(b"k")  # noqa: SLF001 - stubs have no public name
        ask(GetOrStub(name, b"one", 30))
        for command in (GetAged(name), Peek(name)):
            payload, _ = ask(command)
            assert is_mark(payload)
        assert client.exists("k") is False
        assert client.ttl("k") is None

    @requires(AGES, CAS, STUBS)
    def test_a_value_of_a_cached_function_lives_while_it_is_served(self, client: Any) -> None:
        """Its life is the time for which it is fresh, then stale."""

        def call() -> Any:
            made = client.get_or_set("k", lambda: 1, ttl=100, stale=200)
            return made if isinstance(made, int) else client.loop.run_until_complete(made)

        assert call() == 1
        assert client.exists("k") is True
        assert _is_left(client.ttl("k"), 300)

    @requires(AGES)
    @pytest.mark.parametrize("key", [b"two words", b"\xff\x00", b"k" * 300], ids=repr)
    def test_ages_work_with_any_key(self, ask: Ask, key: bytes) -> None:
        """A key with any characters has an age."""
        ask(Set(key, VALUE, 50))
        assert ask(GetAged(key))[0] == VALUE
        assert ask(Peek(key))[0][0] == VALUE[0]


class KeepContract(ContractFixtures):
    """A store may keep the expiry of the value that it replaces."""

    @pytest.fixture
    def swap(self, client: Any, member: Member) -> Callable[[Any], Any]:
        """Return a function that replaces the value of `k`, and keeps its expiry."""
        if not {CasKeep, GetExpiry} & member.supports:
            pytest.skip("the backend cannot keep an expiry")

        def store(value: Any) -> Any:
            _, token = client.gets("k")
            return client.cas("k", value, token, ttl=KEEP)

        return store

    @requires(AGES, CAS)
    @pytest.mark.parametrize("ttl", [100, 3_000_000, None], ids=repr)
    def test_a_kept_expiry_stays(self, client: Any, swap: Callable[[Any], Any], ttl: Any) -> None:
        """A value with another length and type expires when the one before would have."""
        client.set("k", 1, ttl=ttl)
        for value in ("text", [1, 2], 7, b"", None):
            assert swap(value) is True
            assert client.get("k", "missing") == value
        assert _is_left(client.ttl("k"), ttl)

    @requires(CAS)
    def test_a_changed_value_is_not_replaced(self, client: Any, swap: Callable[[Any], Any]) -> None:
        """Nor is a missing one stored: then there is no expiry to keep."""
        client.set("k", "old", ttl=100)
        _, token = client.gets("k")
        client.set("k", "new", ttl=200)
        assert client.cas("k", "late", token, ttl=KEEP) is False
        assert client.get("k") == "new"
        assert client.cas("k", "late", None, ttl=KEEP) is False
        client.delete("k")
        assert client.cas("k", "ghost", token, ttl=KEEP) is None
        assert client.get("k") is None
        assert swap("ghost") is None

    @requires(CAS)
    def test_a_value_that_is_replaced_all_the_time_expires(
        self, client: Any, swap: Callable[[Any], Any]
    ) -> None:
        """Keeping an expiry a thousand times neither moves it nor loses it."""
        client.set("k", 0, ttl=4)
        began = time.monotonic()
        while swap("again"):
            assert time.monotonic() < began + 10
        assert time.monotonic() > began + 2.5

    @pytest.mark.parametrize("call", ["set", "add", "replace", "set_many", "touch", "incr", "decr"])
    def test_no_other_call_keeps_an_expiry(self, client: Any, call: str) -> None:
        """The error names the call that does."""
        client.set("k", 1)
        arguments: dict[str, tuple[Any, ...]] = {
            "set_many": ({"k": 2},),
            "touch": ("k",),
            "incr": ("k", 1),
            "decr": ("k", 1),
        }
        with pytest.raises(TypeError, match="KEEP is for cas"):
            getattr(client, call)(*arguments.get(call, ("k", 2)), ttl=KEEP)
        assert client.get("k") == 1
