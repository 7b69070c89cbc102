"""A cluster whose nodes are asked for no key: the cache is turned off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeUnavailableError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.members import Member
from shardcache.operations.port import Enough


class DisabledCluster(Cluster):
    """A cluster that answers for its nodes: reads are misses, and writes return `False`.

    It answers at the key-addressed door as if each node were down and `on_error` were `"miss"`, and
    counts none of that as a failure. Locks, pings and all else about a node itself go to the nodes.
    """

    __slots__ = ()

    disabled = True

    def __init__(self, **parts: Any) -> None:  # as `Cluster` takes them
        super().__init__(**{**parts, "on_error": "miss"})

    async def ask(self, member: Member, command: Command, deadline: float | None = None) -> Reply:
        """Return the error of a node that is not asked."""
        ((reply, _),) = await self.ask_timed([(member, command)], deadline)
        return reply

    async def ask_timed(
        self,
        asks: Sequence[tuple[Member, Command]],
        deadline: float | None = None,  # noqa: ARG002 - nothing is waited for
        enough: Enough | None = None,  # noqa: ARG002 - as above
        *,
        ejected_too: bool = False,  # noqa: ARG002 - as above
    ) -> list[tuple[Reply, float]]:
        """Return the errors of nodes that are not asked."""
        await self.io.give_way()  # a caller that retries in a loop must not starve the others
        return [
            (NodeUnavailableError("the cache is disabled", member.node.name), 0.0)
            for member, _ in asks
        ]
