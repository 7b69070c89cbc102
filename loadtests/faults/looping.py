"""Calls on an event loop that signals, cancellations and timeouts break off."""

from __future__ import annotations

import asyncio
import random
import selectors
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any, Final

from faults.interrupting import (
    KEYS,
    SOON,
    Calls,
    Interrupt,
    Interrupted,
    SoftInterrupt,
    count_leak,
    value_of,
)
from faults.players import Part
from shardcache import AsyncClient, NodeError

HUNG: Final = 4.0  # seconds that no call may take, twice its timeout
# Seconds for what an interrupt has left: a call that it kept from being sent ends by its timeout, and its
# connection is replaced as one that stalls.
REST: Final = 2 * HUNG
TURN: Final = 0.1  # seconds between two looks at what is left
BESIDE: Final = 3  # reads that are under way beside each call
ASYNCIO: Final = str(Path(asyncio.__file__).parent)

# Answers are of the type that each call returns, hence `Any`.


class LoopClient:
    """An asyncio client on the main thread's loop, called as a blocking one is.

    Other reads are under way beside each call; they are judged here, and counted in `tally`.
    """

    def __init__(self, part: Part) -> None:
        self.tally: Counter[str] = Counter()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._note)
        self.within: float | None = None  # seconds after which the next call is timed out
        self._client = AsyncClient(part.urls, timeout=part.timeout, **part.options)
        self._chance = random.Random(part.seed)

    def get(self, key: str) -> Any:
        """Return what a read returns."""
        return self._run(lambda: self._client.get(key))

    def get_many(self, keys: Sequence[str]) -> Any:
        """Return what a read of many keys returns."""
        return self._run(lambda: self._client.get_many(keys))

    def incr(self, key: str) -> Any:
        """Return what one more is."""
        return self._run(lambda: self._client.incr(key))

    def delete(self, key: str) -> Any:
        """Return whether the key was there."""
        return self._run(lambda: self._client.delete(key))

    def settle(self) -> int:
        """Wait for calls and tasks that interrupts have left; return how many do not end."""
        until = time.monotonic() + REST
        while (left := self._left()) and time.monotonic() < until:
            with suppress(*InterruptedLoop.kinds):  # which a task has kept until now
                self.loop.run_until_complete(asyncio.sleep(TURN))
        return left

    def _left(self) -> int:
        busy = sum(use.busy for use in self._client.counters().pools.values())
        return len(asyncio.all_tasks(self.loop)) + busy

    def _run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        beside = self._chance.sample(KEYS, BESIDE)
        try:
            answer, *others = self.loop.run_until_complete(self._gather(call, beside))
        except TimeoutError:
            self.tally["hung"] += self.within is None
            raise
        except RuntimeError as error:
            if "stopped before" not in str(error):
                raise
            raise Interrupt from error  # one that came while the loop was about to stop
        for key, value in zip(beside, others, strict=True):
            self.tally["wrong"] += value not in (value_of(key), None)
        return answer

    async def _gather(self, call: Callable[[], Awaitable[Any]], beside: Sequence[str]) -> list[Any]:
        async with asyncio.timeout(self.within or HUNG):
            return await asyncio.gather(call(), *map(self._client.get, beside))

    def _note(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Count what a callback of the loop raised, unless it is an interrupt or what one has left."""
        error = context.get("exception")
        left = (*InterruptedLoop.kinds, NodeError, TimeoutError)
        if error is not None and not isinstance(error, left):
            count_leak(self.tally, error)


class TaskCalls(Calls):
    """Calls of an asyncio client whose answers are known."""

    def __init__(self, part: Part) -> None:
        self.client = LoopClient(part)
        super().__init__(self.client)
        self.client.tally = self.tally

    def read_all(self) -> int:
        """Return how many keys have their value, once what was left has come to an end."""
        self.client.settle()
        return super().read_all()

    def lost(self) -> int:
        """Return how many tasks and connections wait, though no call is in progress."""
        return self.client.settle()


class InterruptedLoop(Interrupted):
    """The main thread of a program, whose event loop signals interrupt, and whose calls time out."""

    kinds = (Interrupt, KeyboardInterrupt, SoftInterrupt)

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        self._by_signal = cycle((True, True, True, False))

    def _open(self, part: Part) -> TaskCalls:
        self._tasks = TaskCalls(part)
        return self._tasks

    def _call_once(self, chance: random.Random) -> None:
        if next(self._by_signal):
            super()._call_once(chance)
        else:
            self._time_out(chance)

    def _time_out(self, chance: random.Random) -> None:
        """Make a call that `asyncio.timeout` cancels."""
        self._tasks.client.within = chance.uniform(*SOON)
        try:
            self._tasks.one(chance)
        except TimeoutError:
            self._tasks.tally["interrupts"] += 1
        except self.kinds:  # of a task that was left
            return
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            count_leak(self._tasks.tally, error)
        finally:
            self._tasks.client.within = None

    def _may_interrupt(self, frame: FrameType | None) -> bool:
        """Return whether it is the program or the client that is at work, or all wait.

        In the loop's own code an interrupt may lose any callback, whatever a client does.
        """
        code = frame.f_code if frame is not None else None
        if code is None or code.co_filename.startswith(ASYNCIO):
            return False
        return code.co_filename != selectors.__file__ or code.co_name == "select"
