"""An event loop in its own thread, which takes orders from other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Loop:
    """An event loop that runs until its process ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="loop", daemon=True).start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine on the loop, and return its result."""

        async def working() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(working(), self._loop).result()

    def tasks(self) -> int:
        """Return how many tasks it has."""
        return len(asyncio.all_tasks(self._loop))
