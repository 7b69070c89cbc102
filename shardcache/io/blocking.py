"""The port of the blocking client: its coroutines block, and never suspend."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from types import BuiltinFunctionType, CoroutineType
from typing import Any, Final, TypeVar

from shardcache.backends.base import Backend
from shardcache.backends.threads import NoThreadError, Workers, start_thread
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError, UncacheableResultError
from shardcache.io.chance import random
from shardcache.io.fanout import FanOut
from shardcache.io.single_flight import context_outside
from shardcache.io.thread_flights import ThreadSingleFlight
from shardcache.io.threads import Cleaners, Repeater, ThreadRepetition
from shardcache.operations.port import Aside, Enough, Pause, Work, run

T = TypeVar("T")

REFRESHERS: Final = 4  # threads that refresh values while the stale ones are served
CLEANERS: Final = 8  # clean-up threads: each silent node keeps one busy


class BlockingIO:
    """The port of threads: many nodes are asked at once by split-phase exchanges."""

    __slots__ = ("_cleaners", "_refreshers", "_repeater", "single_flight")

    refreshes_in_background = False
    straight = True
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    process = staticmethod(os.getpid)
    random = staticmethod(random)

    def __init__(self) -> None:
        self.single_flight = ThreadSingleFlight()
        self._repeater = Repeater()
        self._refreshers = Workers("shardcache refresh", REFRESHERS)
        self._cleaners = Cleaners("shardcache clean-up", CLEANERS)

    async def call(self, backend: Backend, command: Command, deadline: float) -> Reply:
        """Ask one node; raise its `NodeError`."""
        return backend.execute(command, deadline)

    async def call_many(
        self,
        asks: Sequence[tuple[Backend, Command]],
        deadline: float,
        enough: Enough | None = None,
    ) -> list[tuple[Reply, float]]:
        """Send to every node, then read from every node, until `enough` and a moment longer."""
        if enough is None and len(asks) == 1:
            return [self._call_one(*asks[0], deadline)]
        together = getattr(asks[0][0], "ask_together", None) if asks else None
        if together is None or enough is not None:
            return _drive(FanOut(asks, deadline, enough))
        answers, begun = together(asks, deadline)
        return _drive(FanOut.going_on(deadline, answers, begun)) if begun else answers

    async def coalesce(self, name: Hashable, ask: Callable[[], Awaitable[Reply]]) -> Reply:  # noqa: ARG002
        """Call `ask`: threads do not share replies."""
        return await ask()

    async def compute(self, factory: Callable[[], Any]) -> Any:  # of whatever type
        """Call the caller's function in this thread; raise `UncacheableResultError` for a coroutine."""
        result = await Aside(factory)
        if isinstance(result, CoroutineType):
            result.close()
            raise UncacheableResultError(
                f"{result.__qualname__} is an async def, and a plain def or lambda returned its"
                " coroutine, which a blocking client cannot await: make that an async def too, and"
                " use an AsyncClient"
            )
        return result

    def token(self) -> bytes:
        """Return 16 random bytes, unique and not to be guessed."""
        return secrets.token_bytes(16)

    async def sleep(self, seconds: float) -> None:
        """Block the thread."""
        time.sleep(seconds)  # noqa: ASYNC251 - it never runs on an event loop

    async def give_way(self) -> None:
        """Let other greenlets run once; threads are preempted anyway."""
        if not isinstance(time.sleep, BuiltinFunctionType):  # as gevent replaces it
            time.sleep(0)  # noqa: ASYNC251 - as above

    def spawn(self, work: Work[None], name: str) -> None:
        """Run an operation in a daemon thread."""
        start_thread(lambda: run(work), f"shardcache {name}")

    def try_spawn(self, work: Work[None], name: str) -> bool:  # noqa: ARG002 - they share their threads
        """Run an operation in one of a few threads, unless all are busy."""
        context = context_outside()
        try:
            return self._refreshers.try_submit(lambda: context.run(run, work))
        except NoThreadError:
            return False

    async def shield(self, work: Work[T]) -> T:
        """Run an operation. Only a signal can interrupt a thread, and it may."""
        return await work()

    def clean_up(self, name: Hashable, turn: Work[Pause | None]) -> None:
        """Run `turn` in one of a few threads, unless a thread runs under this name."""
        self._cleaners.add(name, turn)

    def repeat(self, every: float, work: Work[bool], name: str) -> ThreadRepetition:  # noqa: ARG002
        """Run `work` in the one thread that all repetitions share, every `every` seconds."""
        return self._repeater.add(every, work)

    def close(self) -> None:
        """End all repetitions and threads; wait a moment for clean-ups."""
        self._cleaners.close()
        self._repeater.close()
        self._refreshers.close()

    def _call_one(self, backend: Backend, command: Command, deadline: float) -> tuple[Reply, float]:
        try:
            reply = backend.execute(command, deadline)
        except NodeError as error:
            reply = error
        return reply, time.monotonic()


def _drive(fan_out: FanOut) -> list[tuple[Reply, float]]:
    try:
        fan_out.run()
    except BaseException:
        fan_out.abandon()
        raise
    return fan_out.answers()
