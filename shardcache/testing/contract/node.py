"""The backend contract: what concerns the node itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from shardcache import NodeError, UnsupportedError
from shardcache.core.capabilities import EVERYTHING, PLAIN
from shardcache.core.commands import (
    Acquire,
    Cas,
    CasKeep,
    CasUntil,
    Command,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    DeleteCas,
    GetAged,
    GetExpiry,
    GetOrStub,
    Gets,
    IncrSigned,
    Peek,
    Ping,
    Renew,
    Until,
)
from shardcache.operations.cluster.members import Member
from shardcache.testing.contract.base import NAME, VALUE, Ask, ContractFixtures
from shardcache.testing.driving import Mode

# One command of each kind that a backend need not support.
OPTIONAL: Mapping[type, Command] = {
    type(command): command
    for command in (
        Gets(NAME),
        Cas(NAME, VALUE, None),
        DeleteCas(NAME, None),
        GetOrStub(NAME, b"mark", 30),
        Renew(NAME, b"mark", None, 30),
        Acquire(NAME, VALUE, 30),
        CommandList([Ping()]),
        CompareAndDelete(NAME, VALUE),
        CompareAndExpire(NAME, VALUE, 30),
        GetAged(NAME),
        Peek(NAME),
        GetExpiry(NAME),
        CasKeep(NAME, VALUE, None),
        CasUntil(NAME, VALUE, None, Until(0)),
        IncrSigned(NAME, 1),
    )
}


class NodeContract(ContractFixtures):
    """A node answers for itself."""

    def test_an_unsupported_command_is_refused(self, ask: Ask, member: Member) -> None:
        """A plain backend does all that is not optional; any other command is an error that says so."""
        assert PLAIN <= member.supports <= EVERYTHING
        for command in EVERYTHING - member.supports:
            with pytest.raises(UnsupportedError, match=f"not support {command.__name__}"):
                ask(OPTIONAL[command])

    def test_ping_stats_and_flush(self, client: Any) -> None:
        """The node answers a ping and returns its figures; a flush empties it."""
        client.set("k", 1)
        client.get("k")
        client.get("missing")
        (node,) = client.nodes
        seconds = client.ping()[node.name]
        assert not isinstance(seconds, NodeError)
        assert 0 <= seconds < 5
        figures = client.stats()[node.name]
        assert isinstance(figures.server, dict)
        assert (figures.client["hits"], figures.client["misses"]) == (1, 1)
        assert client.flush_all() is True
        assert client.get("k") is None

    def test_an_ejected_backend_serves_the_next_call(
        self, client: Any, mode: Mode, member: Member
    ) -> None:
        """After `eject`, in the event loop or outside it, the next call is served, as a probe is."""
        client.set("k", 1)

        async def eject() -> None:
            member.backend.eject()

        member.backend.eject()
        assert client.get("k") == 1
        if mode == "asyncio":
            client.loop.run_until_complete(eject())
            assert client.get("k") == 1
        assert client.ejected == ()
