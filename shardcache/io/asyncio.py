"""The port of the asyncio client: its coroutines await the running loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from contextvars import Context
from typing import Any, TypeVar

from shardcache.backends.base import LAST_WAIT, AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.io.chance import random
from shardcache.io.single_flight import context_outside
from shardcache.io.task_fanout import ask_all, ask_until
from shardcache.io.task_flights import TaskSingleFlight
from shardcache.io.tasks import SharedReplies, TaskRepetition
from shardcache.operations.port import Enough, Pause, Work

T = TypeVar("T")


class AsyncIO:
    """The port of tasks: commands of one turn of the loop leave in one write."""

    __slots__ = (
        "_cleaning",
        "_closed",
        "_closing",
        "_repetitions",
        "_tasks",
        "coalesce",
        "single_flight",
    )

    refreshes_in_background = True
    straight = True
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    process = staticmethod(os.getpid)
    random = staticmethod(random)
    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # a loop holds its tasks weakly
        self._closing: set[asyncio.Task[Any]] = set()  # the clean-up tasks among them
        self._cleaning: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Task[None]] = {}
        self._closed = False
        self._repetitions: set[TaskRepetition] = set()
        self.single_flight = TaskSingleFlight()
        self.coalesce = SharedReplies().get

    def call(
        self, backend: AsyncBackend, command: Command, deadline: float
    ) -> asyncio.Future[Reply]:
        """Ask one node; the future raises its `NodeError`."""
        return backend.execute(command, deadline)

    def call_many(
        self,
        asks: Sequence[tuple[AsyncBackend, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> Coroutine[Any, Any, list[tuple[Reply, float]]]:
        """Send to every node in this turn, then await all replies, or `enough` of them."""
        if enough is None:
            return ask_all(asks, deadline)
        return ask_until(asks, deadline, enough)

    async def give_way(self) -> None:
        """Let the other tasks of the loop run once."""
        await asyncio.sleep(0)

    async def compute(self, factory: Callable[[], Any]) -> Any:  # of whatever type
        """Call the caller's function; await its result if that is awaitable."""
        result = factory()
        return await result if inspect.isawaitable(result) else result

    def token(self) -> bytes:
        """Return 16 random bytes, unique and not to be guessed."""
        return secrets.token_bytes(16)

    def spawn(self, work: Work[None], name: str) -> None:
        """Run an operation in a task of the running loop."""
        self._start_task(work, name)

    def try_spawn(self, work: Work[None], name: str) -> bool:
        """Run an operation in a task of the running loop. Their number has no limit."""
        self._start_task(work, name, context_outside())
        return True

    async def shield(self, work: Work[T]) -> T:
        """Run an operation in a task that goes on when the caller is cancelled."""
        return await asyncio.shield(self._start_closing(work, "closing step"))

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Run `turn` in a task of the running loop, unless a task runs under this name."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # the loop ended while the caller was suspended
            return
        if self._closed:
            return
        for key in [key for key in list(self._cleaning) if key[0].is_closed()]:
            self._cleaning.pop(key, None)
        known = self._cleaning.get((loop, name))
        if known is not None and not known.done():
            return

        async def take_turns() -> None:
            try:
                while (pause := await turn()) is not None:
                    (self._closing.discard if pause.stuck else self._closing.add)(task)
                    await asyncio.sleep(pause.seconds)
            finally:  # in the same step: a later `clean_up` starts another task
                self._cleaning.pop((loop, name), None)

        self._cleaning[loop, name] = task = self._start_closing(take_turns, "clean-up")

    def _start_closing(self, work: Work[T], name: str) -> asyncio.Task[T]:
        """Start a task for which `aclose` waits a moment."""
        task = self._start_task(work, name)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def repeat(self, every: float, work: Work[bool], name: str) -> TaskRepetition:
        """Run `work` in tasks of the running loop, every `every` seconds."""
        self._repetitions = {each for each in self._repetitions if not each.ended}
        repetition = TaskRepetition(every, work, name)
        self._repetitions.add(repetition)
        return repetition

    def _start_task(
        self, work: Work[T], name: str, context: Context | None = None
    ) -> asyncio.Task[T]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work(), name=f"shardcache {name}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel the tasks of this loop, and wait until they have ended and cleaned up.

        A clean-up on a silent node is cancelled: what it was to remove, such as a lock, expires.
        """
        for repetition in self._repetitions:
            repetition.end()
        own = [*self.single_flight.tasks(), *_here(self._tasks - self._closing)]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        until = time.monotonic() + LAST_WAIT
        while (closing := _here(self._closing)) and (left := until - time.monotonic()) > 0:
            await asyncio.wait(closing, timeout=left)
        self._closed = True
        silent = _here(self._tasks)
        for task in silent:
            task.cancel()
        await asyncio.gather(*silent, return_exceptions=True)


def _here(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return the tasks of the running loop without the current one."""
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    return [task for task in list(tasks) if task.get_loop() is loop and task is not current]
