"""Many nodes asked at once by one task: all send in this turn of the loop, and one future is awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from shardcache.backends.base import AsyncBackend
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError
from shardcache.io.fanout import grace
from shardcache.operations.port import UNANSWERED, Enough

LOOK_AGAIN: Final = 0.05  # seconds behind the deadline, by which each backend has answered


class TaskFanOut:
    """The replies of many nodes to one call, and one future that is done when the last has come.

    With a future for each node, the loop would run two callbacks for each. That is a sixth of what a call
    over eight nodes costs. Backends that return futures are asked in that way all the same. Behind the
    deadline each such future is looked at once more: an interrupt may have lost its callback.
    """

    __slots__ = ("_futures", "answers", "finished", "loop", "missing")

    def __init__(self, asks: Sequence[tuple[AsyncBackend, Command]], deadline: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(asks)
        self.missing = set(range(len(asks)))  # the places without an answer
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self._futures: list[tuple[Answer, asyncio.Future[Reply]]] = []
        try:
            for place, (backend, command) in enumerate(asks):
                self._ask(Answer(self, place), backend, command, deadline)
        except BaseException:
            self.finished.cancel()
            raise
        if not asks:
            self.finished.set_result(None)

    def _ask(
        self, answer: Answer, backend: AsyncBackend, command: Command, deadline: float
    ) -> None:
        send_for = getattr(backend, "send_for", None)
        try:
            if send_for is not None:
                send_for(answer, command, deadline)
                return
            future = backend.execute(command, deadline)
        except NodeError as error:
            answer.set_exception(error)
            return
        if future.done():
            answer.take(future)
        else:
            if not self._futures:
                self._look_again_after(deadline)
            self._futures.append((answer, future))
            future.add_done_callback(answer.take)

    def _look_again_after(self, deadline: float) -> None:
        """Take what the futures have when the deadline is over; cancel them once no caller waits."""
        delay = max(0.0, deadline - time.monotonic()) + LOOK_AGAIN
        timer = self.loop.call_later(delay, self._take_all)

        def discard(_: asyncio.Future[None]) -> None:
            timer.cancel()
            for _place, future in self._futures:
                future.cancel()

        self.finished.add_done_callback(discard)

    def _take_all(self) -> None:
        for answer, future in self._futures:
            if future.done():
                answer.take(future)


class Answer:
    """The place of one node's reply, in the role of a future of it."""

    __slots__ = ("_fan_out", "_place")

    def __init__(self, fan_out: TaskFanOut, place: int) -> None:
        self._fan_out = fan_out
        self._place = place

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task that waits."""
        return self._fan_out.loop

    def done(self) -> bool:
        """Return whether no task waits for the reply any more."""
        return self._fan_out.finished.done()

    def set_result(self, reply: Reply) -> None:
        """Keep the reply, unless there is one, and the time; wake the task if it is the last."""
        fan_out, place = self._fan_out, self._place
        missing = fan_out.missing
        if place in missing:
            fan_out.answers[place] = reply, time.monotonic()
            missing.discard(place)
        # Looked at again after a second reply: an interrupt may have come before this line.
        if not missing and not fan_out.finished.done():
            fan_out.finished.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        """Keep a node's error as its reply; any other error ends the call."""
        if isinstance(error, NodeError):
            self.set_result(error)
        elif not self.done():
            self._fan_out.finished.set_exception(error)

    def take(self, future: asyncio.Future[Reply]) -> None:
        """Take the outcome of a future that is done."""
        if future.cancelled():
            self._fan_out.finished.cancel()
        elif (error := future.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(future.result())


async def ask_all(
    asks: Sequence[tuple[AsyncBackend, Command]], deadline: float
) -> list[tuple[Reply, float]]:
    """Send to every node in this turn, then await all replies; return each, and when it came."""
    fan_out = TaskFanOut(asks, deadline)
    await fan_out.finished
    return fan_out.answers


async def ask_until(
    asks: Sequence[tuple[AsyncBackend, Command]], deadline: float, enough: Enough
) -> list[tuple[Reply, float]]:
    """Do the same, but return the replies that came until `enough` held, and a moment longer."""
    began = time.monotonic()
    answers: list[tuple[Reply, float]] = [(UNANSWERED, 0.0)] * len(asks)
    pending: dict[asyncio.Future[Reply], int] = {}
    try:
        for place, (backend, command) in enumerate(asks):
            try:
                pending[backend.execute(command, deadline)] = place
            except NodeError as error:
                answers[place] = (error, began)
        left: float | None = None
        while pending:
            if left is None and enough([reply for reply, _ in answers]):
                left = grace(time.monotonic() - began)
            done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for answer in done:
                answers[pending.pop(answer)] = _reply_of(answer), time.monotonic()
        return answers
    finally:
        _discard(pending)


def _reply_of(answer: asyncio.Future[Reply]) -> Reply:
    try:
        return answer.result()
    except NodeError as error:
        return error


def _discard(started: Sequence[asyncio.Future[Reply]] | dict[asyncio.Future[Reply], int]) -> None:
    """Cancel the futures that will not be awaited: a cancelled caller leaves no unread exception."""
    for answer in started:
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()
