"""The asyncio client driven as if it blocked, so that one test speaks to both clients."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

from shardcache.clients.asyncio import AsyncClient
from shardcache.clients.blocking import Client

Mode = Literal["blocking", "asyncio"]
MODES: tuple[Mode, ...] = ("blocking", "asyncio")


class DrivenClient:
    """An `AsyncClient` whose calls run to their end on a loop of its own.

    `close()` closes both. What is not a coroutine function is passed through as it is.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.twin = client
        self.loop = asyncio.new_event_loop()
        weakref.finalize(self, self.loop.close)

    def __getattr__(self, name: str) -> Any:  # whatever the client has
        attribute = getattr(self.twin, name)
        return self._driven(attribute) if inspect.iscoroutinefunction(attribute) else attribute

    def _driven(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:  # passed on as they are
            return self.loop.run_until_complete(call(*args, **kwargs))

        return run

    def close(self) -> None:
        """Close the client and its loop."""
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.twin.aclose())
            self.loop.close()


def make_client(mode: Mode, *args: Any, **settings: Any) -> Any:  # a Client, or what acts as one
    """Give a client of `mode` to be called as one that blocks."""
    if mode == "blocking":
        return Client(*args, **settings)
    return DrivenClient(AsyncClient(*args, **settings))
