"""The backend contract: commands that travel together."""

from __future__ import annotations

from shardcache.core.capabilities import CAS, LISTS, STUBS
from shardcache.core.commands import (
    Cas,
    Command,
    CommandList,
    Delete,
    DeleteCas,
    Get,
    GetOrStub,
    Set,
)
from shardcache.testing.contract.base import NAME, OTHER, VALUE, Ask, ContractFixtures, requires


class ListContract(ContractFixtures):
    """Commands in a list are carried out in order, and each has its own reply."""

    @requires(LISTS)
    def test_each_command_of_a_list_has_its_reply(self, ask: Ask) -> None:
        """A later command sees what an earlier one did."""
        other = NAME + b"2"
        commands: list[Command] = [
            Get(NAME),
            Set(NAME, VALUE, 60),
            Get(NAME),
            Get(other),
            Delete(NAME),
            Get(NAME),
            Delete(NAME),
        ]
        assert ask(CommandList(commands)) == [None, True, VALUE, None, True, None, False]
        assert ask(CommandList([Get(other)])) == [None]

    @requires(CAS, STUBS, LISTS)
    def test_a_list_of_claims_and_stores(self, ask: Ask) -> None:
        """Many stubs are left, and many values stored in their places, each by its own token."""
        names = [b"%s%d" % (NAME, number) for number in range(20)]
        ask(Set(names[0], OTHER, 60))
        claims = ask(CommandList([GetOrStub(name, name, 30) for name in names]))
        assert [claim.leads for claim in claims] == [False] + [True] * 19
        ask(Delete(names[1]))
        stores = [
            Cas(name, VALUE, claim.token, 60) for name, claim in zip(names, claims, strict=True)
        ]
        release = DeleteCas(names[2], claims[2].token)
        assert ask(CommandList([release, *stores[1:]])) == [True, None, None] + [True] * 17
        assert ask(CommandList([Get(name) for name in names])) == [OTHER, None, None] + [VALUE] * 17
