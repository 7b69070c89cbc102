"""The port of the asyncio client: its coroutines await the running loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from shardcache.backends.base import AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError


class AsyncIO:
    """Asks nodes from tasks; what is asked in one turn of the loop leaves together."""

    __slots__ = ()

    now = staticmethod(time.monotonic)

    def call(
        self, backend: AsyncBackend, command: Command, deadline: float
    ) -> asyncio.Future[Reply]:
        """Ask one node; the future raises the `NodeError` that stands in the way of a reply."""
        return backend.execute(command, deadline)

    async def call_all(
        self, asks: Sequence[tuple[AsyncBackend, Command]], deadline: float
    ) -> list[tuple[Reply, float]]:
        """Send to every node in this turn, then await every reply or error, with when it came."""
        started = [_start(backend, command, deadline) for backend, command in asks]
        try:
            return [await _settled(answer) for answer in started]
        finally:
            _discard(started)


def _start(
    backend: AsyncBackend, command: Command, deadline: float
) -> asyncio.Future[Reply] | NodeError:
    try:
        return backend.execute(command, deadline)
    except NodeError as error:
        return error


async def _settled(answer: asyncio.Future[Reply] | NodeError) -> tuple[Reply, float]:
    if isinstance(answer, NodeError):
        return answer, time.monotonic()
    try:
        reply = await answer
    except NodeError as error:
        reply = error
    return reply, time.monotonic()


def _discard(started: Sequence[asyncio.Future[Reply] | NodeError]) -> None:
    """Let go of what nobody will await: a cancelled caller must leave no unread exception."""
    for answer in started:
        if isinstance(answer, NodeError):
            continue
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()
