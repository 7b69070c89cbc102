"""The backend contract: what concerns the node itself."""

from __future__ import annotations

from typing import Any

from shardcache import NodeError
from shardcache.operations.cluster.members import Member
from shardcache.testing.contract.base import ContractFixtures
from shardcache.testing.driving import Mode


class NodeContract(ContractFixtures):
    """A node answers for itself."""

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
