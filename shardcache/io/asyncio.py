"""The port of the asyncio client: its coroutines await the running loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shardcache.backends.base import AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError


class AsyncIO:
    """Asks nodes from tasks; what is asked in one turn of the loop leaves together."""

    __slots__ = ("_tasks",)

    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

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

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run an operation in a task of the running loop."""
        task = asyncio.get_running_loop().create_task(work(), name=f"shardcache {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel what was spawned on this loop, and wait until it has ended."""
        loop = asyncio.get_running_loop()
        own = [task for task in self._tasks if task.get_loop() is loop]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)


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
