"""How a caller waits for a reply: a thread blocks, a task suspends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class Wait(Protocol):
    """Return a reply, or raise its error; raise `TimeoutError` after the deadline."""

    def __call__(self, reply: Future[T], deadline: float) -> Awaitable[T]:
        """Wait until `deadline`, in monotonic seconds."""


async def block(reply: Future[T], deadline: float) -> T:
    """Block the calling thread; never suspend."""
    return reply.result(max(0.0, deadline - time.monotonic()))


async def suspend(reply: Future[T], deadline: float) -> T:
    """Suspend the calling task; its loop runs on."""
    if reply.done():
        return reply.result()
    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
        return await asyncio.wrap_future(reply)
