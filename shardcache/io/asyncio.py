"""The port of the asyncio client: its coroutines await the running loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, TypeVar

from shardcache.backends.base import LAST_WAIT, AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError
from shardcache.io.fanout import grace
from shardcache.io.single_flight import context_outside
from shardcache.io.tasks import SharedReplies, TaskRepetition, TaskSingleFlight
from shardcache.operations.port import UNANSWERED, Enough, Pause, Work

T = TypeVar("T")


class AsyncIO:
    """Asks nodes from tasks; what is asked in one turn of the loop leaves together."""

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
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    process = staticmethod(os.getpid)
    random = staticmethod(random.random)
    sleep = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # a loop holds its tasks weakly
        self._closing: set[asyncio.Task[Any]] = set()  # of these, those that undo something
        self._cleaning: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Task[None]] = {}
        self._closed = False
        self._repetitions: set[TaskRepetition] = set()
        self.single_flight = TaskSingleFlight()
        self.coalesce = SharedReplies().get

    def call(
        self, backend: AsyncBackend, command: Command, deadline: float
    ) -> asyncio.Future[Reply]:
        """Ask one node; the future raises the `NodeError` that stands in the way of a reply."""
        return backend.execute(command, deadline)

    async def call_many(
        self,
        asks: Sequence[tuple[AsyncBackend, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> list[tuple[Reply, float]]:
        """Send to every node in this turn, then await replies until there are enough, or all."""
        started = [_start(backend, command, deadline) for backend, command in asks]
        try:
            if enough is not None:
                return await _await_enough(started, enough)
            moments = _stamped(started)
            return [await _settled(answer, moments) for answer in started]
        finally:
            _discard(started)

    async def give_way(self) -> None:
        """Let the other tasks of the loop have a turn."""
        await asyncio.sleep(0)

    async def compute(self, factory: Callable[[], Any]) -> Any:  # whatever it makes
        """Call the caller's function, and await what it gives if that can be awaited."""
        made = factory()
        return await made if inspect.isawaitable(made) else made

    def token(self) -> bytes:
        """Give 16 bytes that nobody can guess, and that come but once."""
        return secrets.token_bytes(16)

    def spawn(self, work: Work[None], name: str) -> None:
        """Run an operation in a task of the running loop."""
        self._started(work, name)

    def try_spawn(self, work: Work[None], name: str) -> bool:
        """Run an operation in a task of the running loop: there is no limit to them."""
        self._started(work, name, context_outside())
        return True

    async def shield(self, work: Work[T]) -> T:
        """Do it in a task that goes on when the caller is cancelled."""
        return await asyncio.shield(self._start_closing(work, "closing step"))

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Undo something in a task of the running loop, unless one does so under this name."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # it ended with the caller in the midst of something
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
            finally:  # in the same step: whoever adds something from now on begins another
                self._cleaning.pop((loop, name), None)

        self._cleaning[loop, name] = task = self._start_closing(take_turns, "clean-up")

    def _start_closing(self, work: Work[T], name: str) -> asyncio.Task[T]:
        """Start a task for which a client that is closed waits a moment."""
        task = self._started(work, name)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def repeat(self, every: float, work: Work[bool], name: str) -> TaskRepetition:
        """Do it in tasks of the running loop."""
        self._repetitions = {each for each in self._repetitions if not each.ended}
        repetition = TaskRepetition(every, work, name)
        self._repetitions.add(repetition)
        return repetition

    def _started(self, work: Work[T], name: str, context: Context | None = None) -> asyncio.Task[T]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work(), name=f"shardcache {name}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel what was begun on this loop, and wait until all has ended and been undone.

        What is undone on a node that is silent, such as a lock, is left to expire.
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
    """Give the tasks of the running loop, but for the current one."""
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
            answers[pending.pop(answer)] = await _settled(answer, {})
    return answers


def _stamped(
    started: Sequence[asyncio.Future[Reply] | NodeError],
) -> dict[asyncio.Future[Reply], float]:
    """Give a dict that will hold when each reply came, however late that is looked at."""
    moments: dict[asyncio.Future[Reply], float] = {}

    def stamp(answer: asyncio.Future[Reply]) -> None:
        moments[answer] = time.monotonic()

    for answer in started:
        if not isinstance(answer, NodeError):
            answer.add_done_callback(stamp)
    return moments


async def _settled(
    answer: asyncio.Future[Reply] | NodeError, moments: Mapping[asyncio.Future[Reply], float]
) -> tuple[Reply, float]:
    if isinstance(answer, NodeError):
        return answer, time.monotonic()
    try:
        reply = await answer
    except NodeError as error:
        reply = error
    return reply, moments.get(answer) or time.monotonic()


def _discard(started: Sequence[asyncio.Future[Reply] | NodeError]) -> None:
    """Let go of what nobody will await: a cancelled caller must leave no unread exception."""
    for answer in started:
        if isinstance(answer, NodeError):
            continue
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()
