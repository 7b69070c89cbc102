"""What a process under test does: it makes its client, and obeys the harness at a pipe."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Protocol

from shardcache import AsyncClient, Client
from stampede.ledger import Ledger

# What is cached and configured here is each library's own, hence `Any`.


class RefusedError(Exception):
    """The error that the function under test raises on demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process is to play: whose cache it uses, in front of which function.

    `subject` names a class as `module:Class`; `options` are for its cache; the function sleeps for
    `seconds`, then raises when it `fails`.
    """

    subject: str
    urls: tuple[str, ...]
    ledger: Ledger
    callers: int
    seconds: float = 0.2
    fails: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, number: int) -> dict[str, Any]:
        """Be the function under test, for threads."""
        with self.ledger.run() as name:
            time.sleep(self.seconds)
            return self._result(number, name)

    async def arun(self, number: int) -> dict[str, Any]:
        """Be the function under test, for tasks."""
        with self.ledger.run() as name:
            await asyncio.sleep(self.seconds)
            return self._result(number, name)

    def _result(self, number: int, name: str) -> dict[str, Any]:
        if self.fails:
            raise RefusedError(f"no value for {number}")
        return {"number": number, "run": name}


@dataclass(frozen=True, slots=True)
class Call:
    """One caller's call: monotonic seconds, and which run's value it got or the error's name."""

    begun: float
    ended: float
    run: str | None
    error: str | None = None

    @property
    def wait(self) -> float:
        """Return how long the caller waited."""
        return self.ended - self.begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Let every caller call for a key, at a moment, then `times` in all, `every` so many seconds.

    Callers begin at one moment, or one after another within `spread` seconds. The caller that is
    `cancelled` is the first; it is cancelled after so many seconds.
    """

    at: float
    number: int = 1
    callers: int | None = None
    times: int = 1
    every: float = 0.0
    spread: float = 0.0
    cancelled: float | None = None

    def moments(self, caller: int, callers: int) -> list[float]:
        """Return when one caller calls."""
        first = self.at + self.spread * caller / callers
        return [first + self.every * turn for turn in range(self.times)]


@dataclass(frozen=True, slots=True)
class Tell:
    """An order to call a method of the subject and return the result."""

    method: str
    arguments: tuple[Any, ...] = ()


class Subject(Protocol):
    """A cached function with all that belongs to it."""

    def calls(self, calls: Calls) -> list[Call]:
        """Make the calls; return the result of each."""

    def close(self) -> None:
        """Close connections."""


class Threads:
    """What all blocking subjects share: callers are threads."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.pool = ThreadPoolExecutor(part.callers)
        self.together = threading.Barrier(part.callers)
        self.function: Any = self.cached(part)
        list(self.pool.map(self._warm_up, range(part.callers)))

    def cached(self, part: Part) -> Any:
        """Return the function under test, cached."""
        raise NotImplementedError

    def warm(self) -> None:
        """Open this thread's connections."""

    def calls(self, calls: Calls) -> list[Call]:
        """Make the calls from a thread each."""
        callers = calls.callers or self.part.callers

        def work(caller: int) -> list[Call]:
            made = []
            for moment in calls.moments(caller, callers):
                time.sleep(max(0.0, moment - time.monotonic()))
                begun = time.monotonic()
                try:
                    value, error = self.function(calls.number), None
                except Exception as raised:  # noqa: BLE001 - any error of a library is reported
                    value, error = None, type(raised).__name__
                made.append(Call(begun, time.monotonic(), value and value["run"], error))
            return made

        return [call for made in self.pool.map(work, range(callers)) for call in made]

    def close(self) -> None:
        """Let the threads go."""
        self.pool.shutdown()

    def _warm_up(self, _caller: int) -> None:
        # All at once, so that each opens its own connection.
        self.together.wait()
        self.warm()


class Tasks:
    """What all awaited subjects share: callers are tasks of one loop."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.runner = asyncio.Runner()
        self.function: Any = self.runner.run(self.cached(part))

    async def cached(self, part: Part) -> Any:
        """Return the function under test, cached, with open connections."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close connections."""

    def calls(self, calls: Calls) -> list[Call]:
        """Make the calls from a task each."""
        return self.runner.run(self._calls(calls))

    def close(self) -> None:
        """Close connections and the loop."""
        self.runner.run(self.aclose())
        self.runner.close()

    async def _calls(self, calls: Calls) -> list[Call]:
        callers = calls.callers or self.part.callers
        tasks = [asyncio.create_task(self._caller(calls, n, callers)) for n in range(callers)]
        if calls.cancelled is not None:
            await asyncio.sleep(calls.at + calls.cancelled - time.monotonic())
            tasks[0].cancel()
        return [call for made in await asyncio.gather(*tasks) for call in made]

    async def _caller(self, calls: Calls, caller: int, callers: int) -> list[Call]:
        made = []
        for moment in calls.moments(caller, callers):
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            begun = time.monotonic()
            value, error = None, None
            try:
                value = await self.function(calls.number)
            except asyncio.CancelledError:
                error = "CancelledError"
            except Exception as raised:  # noqa: BLE001 - any error of a library is reported
                error = type(raised).__name__
            made.append(Call(begun, time.monotonic(), value and value["run"], error))
        return made


class Cached(Threads):
    """`Client.cached`."""

    TIMEOUT = 0.1

    def cached(self, part: Part) -> Any:
        """Return the function under test, cached."""
        self.client = Client(part.urls, timeout=self.TIMEOUT)
        return decorate(self.client, part)

    def warm(self) -> None:
        """Open this thread's connection to every node."""
        self.client.ping()

    def invalidate(self, number: int) -> None:
        """Let the value be wrong from now on."""
        self.function.invalidate(number)

    def stored(self, number: int) -> str | None:
        """Return which run's value is stored."""
        value = self.function.get(number)
        return None if value is None else str(value["run"])

    def rejected(self) -> int:
        """Return how many results this process was not let store."""
        return int(self.function.cache_info().rejected)

    def tries(self, name: str, ttl: float, at: float) -> tuple[str, float]:
        """Try once to take a lock at a moment; return the result and the seconds it took."""
        lock = self.client.lock(name, ttl=ttl)
        time.sleep(max(0.0, at - time.monotonic()))
        begun = time.monotonic()
        try:
            outcome = "held" if lock.try_acquire() is None else "won"
        except Exception as raised:  # noqa: BLE001 - any error is reported
            outcome = type(raised).__name__
        return outcome, time.monotonic() - begun

    def time_acquires(self, name: str, times: int) -> list[float]:
        """Take and release a lock several times; return the seconds that each acquire took."""
        seconds = []
        for _ in range(times):
            begun = time.monotonic()
            lease = self.client.lock(name, ttl=5).try_acquire()
            seconds.append(time.monotonic() - begun)
            if lease is not None:
                lease.release()
        return seconds

    def close(self) -> None:
        """Close connections and let the threads go."""
        self.client.close()
        super().close()


class PatientCached(Cached):
    """The same with time enough for a machine that has other work: no node passes for silent."""

    TIMEOUT = 10.0


class AsyncCached(Tasks):
    """`AsyncClient.cached`."""

    async def cached(self, part: Part) -> Any:
        """Return the function under test, cached."""
        self.client = AsyncClient(part.urls, timeout=30)  # one loop for all callers: it is behind
        await self.client.ping()

        @self.client.cached(key="stampede:{number}", **part.options)
        async def function(number: int) -> dict[str, Any]:
            return await part.arun(number)

        return function

    async def aclose(self) -> None:
        """Close connections."""
        await self.client.aclose()


def decorate(client: Client, part: Part) -> Any:
    """Return the function under test, cached by a blocking client."""

    @client.cached(key="stampede:{number}", **part.options)
    def function(number: int) -> dict[str, Any]:
        return part.run(number)

    return function


def main(part: Part, pipe: Connection, seconds: float) -> None:
    """Carry out orders until the pipe is closed, for `seconds` at most."""
    signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends the process
    subject = _subject(part)
    pipe.send(os.getpid())
    with suppress(EOFError):
        while True:
            pipe.send(_carry_out(subject, pipe.recv()))
    subject.close()


def _carry_out(subject: Subject, order: Calls | Tell) -> object:
    if isinstance(order, Calls):
        return subject.calls(order)
    return getattr(subject, order.method)(*order.arguments)


def _subject(part: Part) -> Subject:
    module, name = part.subject.split(":")
    made: Subject = getattr(import_module(module), name)(part)
    return made


def errors(calls: Sequence[Call], *names: str) -> int:
    """Count the calls that ended with an error, of those names if any are given."""
    return sum(call.error is not None and (not names or call.error in names) for call in calls)
