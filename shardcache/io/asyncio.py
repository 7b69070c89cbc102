"""The port of the asyncio client: its coroutines await the running loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, TypeVar

from shardcache.backends.base import LAST_WAIT, AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError
from shardcache.io.chance import random
from shardcache.io.fanout import grace
from shardcache.io.single_flight import context_outside
from shardcache.io.task_flights import TaskSingleFlight
from shardcache.io.tasks import SharedReplies, TaskRepetition
from shardcache.operations.port import UNANSWERED, Enough, Pause, Work

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

    async def call_many(
        self,
        asks: Sequence[tuple[AsyncBackend, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> list[tuple[Reply, float]]:
        """Send to every node in this turn, then await all replies, or `enough` of them."""
        started = [_start(backend, command, deadline) for backend, command in asks]
        try:
            if enough is not None:
                return await _await_enough(started, enough)
            arrivals = _record_arrivals(started)
            return [await _await_reply(answer, arrivals) for answer in started]
        finally:
            _discard(started)

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


def _start(
    backend: AsyncBackend, command: Command, deadline: float
) -> asyncio.Future[Reply] | NodeError:
    try:
        return backend.execute(command, deadline)
    except NodeError as error:
        return error


async def _await_enough(
    started: Sequence[asyncio.Future[Reply] | NodeError], enough: Enough
) -> list[tuple[Reply, float]]:
    """Return the replies that came until `enough` held, and a moment longer."""
    began = time.monotonic()
    answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(started)
    pending: dict[asyncio.Future[Reply], int] = {}
    for place, answer in enumerate(started):
        if isinstance(answer, NodeError):
            answers[place] = (answer, began)
        else:
            pending[answer] = place
    left: float | None = None
    while pending:
        if left is None and enough([reply for reply, _ in answers]):
            left = grace(time.monotonic() - began)
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for answer in done:
            answers[pending.pop(answer)] = await _await_reply(answer, {})
    return answers


def _record_arrivals(
    started: Sequence[asyncio.Future[Reply] | NodeError],
) -> dict[asyncio.Future[Reply], float]:
    """Return a dict that is filled with the arrival time of each reply as it comes."""
    arrivals: dict[asyncio.Future[Reply], float] = {}

    def stamp(answer: asyncio.Future[Reply]) -> None:
        arrivals[answer] = time.monotonic()

    for answer in started:
        if not isinstance(answer, NodeError):
            answer.add_done_callback(stamp)
    return arrivals


async def _await_reply(
    answer: asyncio.Future[Reply] | NodeError, arrivals: Mapping[asyncio.Future[Reply], float]
) -> tuple[Reply, float]:
    if isinstance(answer, NodeError):
        return answer, time.monotonic()
    try:
        reply = await answer
    except NodeError as error:
        reply = error
    return reply, arrivals.get(answer) or time.monotonic()


def _discard(started: Sequence[asyncio.Future[Reply] | NodeError]) -> None:
    """Cancel the futures that will not be awaited: a cancelled caller leaves no unread exception."""
    for answer in started:
        if isinstance(answer, NodeError):
            continue
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()
