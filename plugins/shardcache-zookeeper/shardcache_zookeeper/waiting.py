"""How a caller waits for a reply: a thread blocks, a task suspends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Protocol, TypeVar

from shardcache_zookeeper.answers import Answer

T = TypeVar("T")


class Wait(Protocol):
    """Return a reply, or raise its error; raise `TimeoutError` after the deadline."""

    def __call__(self, reply: Answer[T], deadline: float) -> Awaitable[T]:
        """Wait until `deadline`, in monotonic seconds."""


async def block(reply: Answer[T], deadline: float) -> T:
    """Block the calling thread; never suspend."""
    return reply.result(deadline - time.monotonic())


async def suspend(reply: Answer[T], deadline: float) -> T:
    """Suspend the calling task; its loop runs on."""
    if not reply.done():
        loop = asyncio.get_running_loop()
        came = asyncio.Event()

        def wake(_: Answer[T]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(came.set)

        reply.add_done_callback(wake)
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await came.wait()
    return reply.result()
