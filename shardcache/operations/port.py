"""The port through which operations touch the world, and the step that drives them without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from shardcache.core.commands import Command, Reply

T = TypeVar("T")
BackendT_contra = TypeVar("BackendT_contra", contravariant=True)


class IO(Protocol[BackendT_contra]):
    """Asks nodes and tells the time, by blocking or by awaiting. Deadlines are `now()` seconds."""

    def now(self) -> float:
        """Give the monotonic time in seconds."""

    def call(self, backend: BackendT_contra, command: Command, deadline: float) -> Awaitable[Reply]:
        """Ask one node; raise the `NodeError` that stands in the way of a reply."""

    def call_all(
        self, asks: Sequence[tuple[BackendT_contra, Command]], deadline: float
    ) -> Awaitable[list[tuple[Reply, float]]]:
        """Ask all at once; give each one's reply, or `NodeError` as a value, and when it came."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Let time pass."""

    def random(self) -> float:
        """Give a number from 0 up to 1 by chance."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Begin an operation that goes on beside the calls, in a thread or a task of that name."""


def step(operation: Coroutine[Any, Any, T]) -> T:  # what a coroutine yields and is sent is unused
    """Run an operation that never suspends, in one step."""
    try:
        operation.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    operation.close()
    raise RuntimeError(f"{operation!r} suspended; operations may await nothing but their IO port")
