"""In-process memory nodes for tasks."""

from __future__ import annotations

import asyncio

from shardcache.backends.memory import MemoryBackend, Store
from shardcache.core.commands import Command, Reply


class AsyncMemoryBackend:
    """A memory node for asyncio. It never waits, so deadlines do not matter.

    `blocking` is the same node for blocking callers.
    """

    __slots__ = ("_execute", "blocking")

    supports = Store.supports

    def __init__(self, store: Store) -> None:
        self._execute = store.execute
        self.blocking = MemoryBackend(store)

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:  # noqa: ARG002 - it never waits
        """Execute `command`; return a future of the running loop that is already done."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.set_result(self._execute(command))
        return future

    def eject(self) -> None:
        """Do nothing: there are no connections."""

    async def aclose(self) -> None:
        """Do nothing: the memory is freed with the backend."""
