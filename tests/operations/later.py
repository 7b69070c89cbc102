"""A result that comes later in virtual time, and the exception of a cancelled task."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any


class Later:
    """A result that comes later; awaited by simulated tasks."""

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.watchers: list[Callable[[], None]] = []

    def set(self, result: Any) -> None:
        """Return the result, unless there is one."""
        if self.done:
            return
        self.done, self.result = True, result
        for watcher in self.watchers:
            watcher()

    def __await__(self) -> Generator[Later, None, Any]:
        if not self.done:
            yield self
        return self.result


class Cancelled(BaseException):
    """What is raised in a task that is cancelled."""
