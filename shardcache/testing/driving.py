"""An asyncio client that can be called like a blocking one, so that one test serves both clients."""

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
    """An `AsyncClient` whose calls run to their end on an event loop that it brings.

    `close()` closes both. What is not a coroutine function is passed through as it is, except `view`:
    a view is driven on the same loop.
    """

    def __init__(self, client: AsyncClient, parent: DrivenClient | None = None) -> None:
        self.twin = client
        self.loop: asyncio.AbstractEventLoop
        self.loop = asyncio.new_event_loop() if parent is None else parent.loop
        self._parent = parent  # whose loop it is
        if parent is None:
            weakref.finalize(self, self.loop.close)

    def __getattr__(self, name: str) -> Any:  # whatever the client has
        attribute = getattr(self.twin, name)
        return self._drive(attribute) if inspect.iscoroutinefunction(attribute) else attribute

    def _drive(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:  # passed on as they are
            return self.loop.run_until_complete(call(*args, **kwargs))

        return run

    def view(self, **settings: Any) -> DrivenClient:  # as `AsyncClient.view` takes them
        """Return a view of the client, driven on the same loop."""
        return DrivenClient(self.twin.view(**settings), self)

    def close(self) -> None:
        """Close the client, and its loop unless it is a view's."""
        if self.loop.is_closed():
            return
        self.loop.run_until_complete(self.twin.aclose())
        if self._parent is None:
            self.loop.close()

    def __repr__(self) -> str:
        return f"<driven {self.twin!r}>"


def make_client(mode: Mode, *args: Any, **settings: Any) -> Any:  # a Client, or what acts as one
    """Return a client of `mode` to be called like a blocking one."""
    if mode == "blocking":
        return Client(*args, **settings)
    return DrivenClient(AsyncClient(*args, **settings))
