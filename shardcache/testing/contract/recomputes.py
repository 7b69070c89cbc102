"""The backend contract: stubs, by which one caller recomputes a value for all."""

from __future__ import annotations

from typing import Any

import pytest

from shardcache.core.capabilities import CAS, STUBS
from shardcache.core.commands import Cas, Delete, DeleteCas, Get, GetOrStub, Gets, Renew, Set, Touch
from shardcache.core.values.flags import is_stub
from shardcache.testing.contract.base import (
    NAME,
    OTHER,
    PROBE,
    VALUE,
    Ask,
    ContractFixtures,
    requires,
)
from shardcache.testing.waiting import eventually


class RecomputeContract(ContractFixtures):
    """One caller leads; a value that came too late is not stored."""

    @requires(CAS, STUBS)
    def test_one_caller_becomes_the_leader(self, ask: Ask) -> None:
        """Of many callers that miss a key one leads; the others see its stub."""
        first = ask(GetOrStub(NAME, b"one", 30))
        assert (first.payload, first.leads) == (None, True)
        second = ask(GetOrStub(NAME, b"two", 30))
        assert (second.payload, second.leads) == (None, False)
        assert is_stub(ask(Get(NAME)))
        assert ask(Cas(NAME, VALUE, first.token, 60)) is True
        assert ask(Get(NAME)) == VALUE
        third = ask(GetOrStub(NAME, b"three", 30))
        assert (third.payload, third.leads) == (VALUE, False)

    @requires(CAS, STUBS)
    def test_a_stub_is_a_miss_to_readers(self, client: Any, ask: Ask) -> None:
        """While a value is being recomputed, every read is a miss."""
        name = client._cluster.keys.canonical(b"k")  # noqa: SLF001 - stubs have no public name
        ask(GetOrStub(name, b"one", 30))
        assert client.get("k", "default") == "default"
        assert client.get_many(["k"]) == {}
        assert client.gets("k", "default") == ("default", None)
        assert client.set("k", 1)
        assert client.get("k") == 1

    @requires(CAS, STUBS)
    def test_a_late_leader_cannot_overwrite(self, ask: Ask) -> None:
        """A write after the leader began stays, and the leader's value is refused."""
        late = ask(GetOrStub(NAME, b"late", 30))
        ask(Set(NAME, OTHER, 60))
        assert ask(Cas(NAME, VALUE, late.token, 60)) is False
        assert ask(Get(NAME)) == OTHER

    @requires(CAS, STUBS)
    def test_an_invalidation_voids_a_recompute_in_flight(self, ask: Ask) -> None:
        """After a delete the leader's value is refused, even when another leader has begun."""
        voided = ask(GetOrStub(NAME, b"voided", 30))
        assert ask(Delete(NAME)) is True
        assert not ask(Cas(NAME, VALUE, voided.token, 60))
        assert ask(Get(NAME)) is None
        fresh = ask(GetOrStub(NAME, b"fresh", 30))
        assert fresh.leads
        assert not ask(Cas(NAME, VALUE, voided.token, 60))
        assert ask(Cas(NAME, OTHER, fresh.token, 60)) is True
        assert ask(Get(NAME)) == OTHER

    @requires(CAS, STUBS)
    def test_the_second_of_two_writers_is_refused(self, ask: Ask) -> None:
        """Callers that saw the stub may store; only the first of them does."""
        leader = ask(GetOrStub(NAME, b"one", 30))
        helper = ask(GetOrStub(NAME, b"two", 30))
        assert ask(Cas(NAME, VALUE, helper.token, 60)) is True
        assert ask(Cas(NAME, OTHER, leader.token, 60)) is False
        assert ask(Get(NAME)) == VALUE

    @requires(CAS, STUBS)
    def test_a_refresh_replaces_only_the_value_it_read(self, ask: Ask) -> None:
        """A value is replaced by the token that was read with it, unless it has changed."""
        ask(Set(NAME, VALUE, 60))
        refresher = ask(GetOrStub(NAME, b"r", 30))
        slow = ask(GetOrStub(NAME, b"s", 30))
        assert ask(Cas(NAME, OTHER, refresher.token, 60)) is True
        assert ask(Cas(NAME, VALUE, slow.token, 60)) is False
        assert ask(Get(NAME)) == OTHER

    @requires(CAS, STUBS)
    def test_a_token_of_another_node_matches_nothing(self, ask: Ask) -> None:
        """Whatever it is: a caller may have read it from another kind of node."""
        ask(Set(NAME, VALUE, 60))
        for token in (("another", 7), 10**30, "7", b"another", b""):
            assert ask(Cas(NAME, OTHER, token, 60)) is False
            assert ask(DeleteCas(NAME, token)) is False
        assert ask(Get(NAME)) == VALUE

    @requires(CAS, STUBS)
    def test_abandoning_removes_only_the_own_stub(self, ask: Ask) -> None:
        """A stub is removed by its own token only."""
        first = ask(GetOrStub(NAME, b"one", 30))
        assert ask(DeleteCas(NAME, first.token)) is True
        assert ask(DeleteCas(NAME, first.token)) is False
        assert ask(GetOrStub(NAME, b"two", 30)).leads
        assert ask(DeleteCas(NAME, first.token)) is False
        assert is_stub(ask(Get(NAME)))

    @requires(CAS, STUBS)
    def test_a_stub_expires(self, ask: Ask) -> None:
        """The stub of a leader that died expires, and another caller may lead."""
        dead = ask(GetOrStub(NAME, b"dead", 1.5))
        eventually(lambda: ask(GetOrStub(NAME, b"next", 30)).leads, within=10)
        assert not ask(Cas(NAME, VALUE, dead.token, 60))

    @requires(CAS)
    def test_a_longer_ttl_is_not_a_change(self, ask: Ask) -> None:
        """A value may be kept longer while it is refreshed: its token stays valid."""
        ask(Set(NAME, VALUE, 60))
        _, token = ask(Gets(NAME))
        assert ask(Touch(NAME, 100)) is True
        assert ask(Cas(NAME, OTHER, token, 60)) is True

    @requires(CAS, STUBS)
    def test_a_stub_is_renewed_by_its_token(self, ask: Ask) -> None:
        """A slow leader renews its stub; a leader that has lost it renews nothing."""
        leader = ask(GetOrStub(NAME, b"slow", 2))
        token = ask(Renew(NAME, b"slow", leader.token, 30))
        assert token is not None
        ask(Set(PROBE, VALUE, 2))  # when it has expired, the stub would have expired, too
        eventually(lambda: ask(Get(PROBE)) is None, within=10)
        assert is_stub(ask(Get(NAME)))
        ask(Delete(NAME))
        assert ask(Renew(NAME, b"slow", token, 30)) is None
        assert ask(GetOrStub(NAME, b"next", 30)).leads
        assert ask(Renew(NAME, b"slow", token, 30)) is None
        assert ask(Cas(NAME, VALUE, token, 60)) is False

    @requires(CAS, STUBS)
    @pytest.mark.parametrize("key", [b"two words", b"\xff\x00", b"k" * 300], ids=repr)
    def test_stubs_work_with_any_key(self, ask: Ask, key: bytes) -> None:
        """A key with any characters can be led, renewed and abandoned."""
        leader = ask(GetOrStub(key, b"one", 30))
        assert leader.leads
        token = ask(Renew(key, b"one", leader.token, 30))
        assert ask(Cas(key, VALUE, token, 60)) is True
        assert ask(Get(key)) == VALUE
        met = ask(GetOrStub(key, b"two", 30))
        assert met.payload == VALUE
        assert ask(DeleteCas(key, met.token)) is True
