"""Commands on their way over a connection of an event loop, and what waits for each reply."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shardcache.core.commands import Command, Reply


class Waiter(Protocol):
    """What waits for a reply: a future, or something in the role of one."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return its loop."""

    def done(self) -> bool:
        """Return whether the reply is no longer waited for."""

    def set_result(self, reply: Reply, /) -> None:
        """Take the reply."""

    def set_exception(self, error: Exception, /) -> None:
        """Take an error in its place."""


class Call:
    """A command and the future of its reply; a cancelled or late future drops the reply."""

    __slots__ = ("command", "deadline", "future", "retried")

    def __init__(self, command: Command, deadline: float, future: Waiter) -> None:
        self.command = command
        self.deadline = deadline
        self.future = future
        self.retried = False

    def settle(self, reply: Reply | Exception) -> None:
        """Set the reply or the error on the future, unless it is done."""
        if self.future.done():
            return
        if isinstance(reply, Exception):
            self.future.set_exception(reply)
        else:
            self.future.set_result(reply)
