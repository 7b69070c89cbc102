"""The backend contract: keys that one holder acquires."""

from __future__ import annotations

from shardcache.core.capabilities import CAS, COMPARE, LOCKS
from shardcache.core.commands import (
    Acquire,
    Acquired,
    CompareAndDelete,
    CompareAndExpire,
    DeleteCas,
    Get,
    Set,
)
from shardcache.testing.contract.base import NAME, OTHER, VALUE, Ask, ContractFixtures, requires


class LockContract(ContractFixtures):
    """One caller acquires a key, and only its token releases or extends it."""

    @requires(CAS, LOCKS)
    def test_a_key_is_acquired_once(self, ask: Ask) -> None:
        """One of many callers acquires a key; its token releases the key, unless that has changed."""
        taken = ask(Acquire(NAME, VALUE, 30))
        assert isinstance(taken, Acquired)
        assert ask(Acquire(NAME, OTHER, 30)) is False
        assert ask(Get(NAME)) == VALUE
        if taken.token is None:  # the protocol has no CAS number
            return
        assert ask(DeleteCas(NAME, taken.token)) is True
        again = ask(Acquire(NAME, OTHER, 30))
        assert ask(DeleteCas(NAME, taken.token)) is False
        assert ask(Get(NAME)) == OTHER
        assert ask(DeleteCas(NAME, again.token)) is True

    @requires(COMPARE)
    def test_compare_and_delete_and_expire(self, ask: Ask) -> None:
        """A lock is released and extended by its own token only."""
        ask(Set(NAME, VALUE, 30))
        assert ask(CompareAndDelete(NAME, OTHER)) is False
        assert ask(CompareAndExpire(NAME, OTHER, 1)) is False
        assert ask(CompareAndExpire(NAME, VALUE, 60)) is True
        assert ask(Get(NAME)) == VALUE
        assert ask(CompareAndDelete(NAME, VALUE)) is True
        assert ask(CompareAndDelete(NAME, VALUE)) is False
        assert ask(CompareAndExpire(NAME, VALUE, 60)) is False
        assert ask(Get(NAME)) is None
