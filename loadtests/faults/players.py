"""The callers: threads, tasks, or one `asyncio.run` for each call, at a fixed rate."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from faults.calls import Book, Call, total
from faults.lag import LagMeter
from faults.loops import Loop
from faults.usage import Usage, measure_usage
from faults.values import Step, Traffic, Truth, key_of, value_of
from faults.watch import Change, Watch
from shardcache import AsyncClient, Client

LEAD: Final = 0.1  # seconds until the first call
FILL_TIMEOUT: Final = 5.0  # seconds for each batch of first values
FILL_BATCH: Final = 250
UNDER_WAY: Final = 64  # reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process plays: how many call which nodes at which rate, in calls a second of all.

    `ways` are the `on_error` of the clients, over which the workers are spread. See `Book` for
    `keeps` and `late`, `crippling` for `without`.
    """

    urls: tuple[str, ...]
    workers: int
    rate: float = 1000.0
    keys: int = 2000
    timeout: float = 0.1
    ways: tuple[str, ...] = ("miss",)
    deletes: float = 0.0
    seed: int = 1
    keeps: bool = True
    late: float = float("inf")
    options: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


class Report(NamedTuple):
    """The result of a play; `due` is the moment of the first call, `ended` that after the last."""

    due: float
    ended: float
    calls: list[Call]
    tally: Counter[str]
    longest: float
    changes: list[Change]
    lag: float

    def between(self, began: float, ended: float, *nodes: int) -> list[Call]:
        """Return the calls that began in that time, of the nodes at these places or of all."""
        return [
            call
            for call in self.calls
            if began <= call.began < ended and (not nodes or call.node in nodes)
        ]

    def moments(self, what: str, *nodes: int) -> list[float]:
        """Return the moments of an event at the nodes with these indices, or at any."""
        return [c.at for c in self.changes if c.what == what and (not nodes or c.node in nodes)]

    def first(self, what: str, node: int, after: float) -> float | None:
        """Return the seconds from a moment to the first such event of a node."""
        return next((at - after for at in self.moments(what, node) if at >= after), None)


class Worker:
    """A thread that works until its player stops."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised in the thread that awaits the end
            self._error = error

    def end(self) -> None:
        """Wait for its end; raise its error, because a caller that has stopped finds no fault."""
        self._thread.join()
        if self._error is not None:
            raise self._error


class Player(ABC):
    """Some workers that share one client, or one for each `on_error`."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.watch = Watch()
        self.truth = Truth(part.keys, part.workers)
        self.meter = LagMeter()
        self.stopped = threading.Event()
        self.due = self.ended = 0.0
        self.clients = [self._client(way) for way in part.ways]
        self.watch.place(self.clients[0].nodes)
        places = {node.name: place for place, node in enumerate(self.clients[0].nodes)}
        nodes = [places[self.clients[0].node_for(key_of(n)).name] for n in range(part.keys)]
        self.nodes = nodes
        self.books = [
            Book(
                self.truth,
                nodes,
                raises=part.ways[worker % len(part.ways)] == "raise",
                keeps=part.keeps,
                late=part.late,
            )
            for worker in range(part.workers)
        ]

    def fill(self) -> None:
        """Write the first value of every key; raise `RuntimeError` if one fails."""
        with Client(self.part.urls, timeout=FILL_TIMEOUT, **self.part.options) as client:
            for first in range(0, self.part.keys, FILL_BATCH):
                numbers = range(first, min(first + FILL_BATCH, self.part.keys))
                sequences = {number: self.truth.next_sequence(number) for number in numbers}
                writers = self.part.workers
                values = {
                    key_of(number): value_of(number, number % writers, sequence)
                    for number, sequence in sequences.items()
                }
                if refused := client.set_many(values):
                    raise RuntimeError(f"{len(refused)} first values could not be stored")
                for number, sequence in sequences.items():
                    self.truth.acknowledge(number, sequence)

    def begin(self) -> float:
        """Start the workers; return when the first call is due."""
        self.due = time.monotonic() + LEAD
        self.meter.__enter__()
        self._begin()
        return self.due

    def end(self) -> Report:
        """Stop the workers; return their report."""
        self.stopped.set()
        self._join()
        self.ended = time.monotonic()
        self.meter.__exit__(None, None, None)
        return self.report()

    def report(self) -> Report:
        """Return the results so far."""
        calls = sorted(call for book in self.books for call in book.calls)
        return Report(
            due=self.due,
            ended=self.ended,
            calls=calls,
            tally=total(self.books),
            longest=max(book.longest for book in self.books),
            changes=list(self.watch.changes),
            lag=self.meter.worst,
        )

    def reset_lag(self) -> None:
        """Measure the lag from now on."""
        self.meter.reset()

    def ejected(self) -> int:
        """Return how many nodes are ejected now, in all clients."""
        return sum(len(client.ejected) for client in self.clients)

    def usage(self) -> Usage:
        """Return what this process uses."""
        return measure_usage(self._tasks())

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until every node is asked again; return the seconds it took, `None` if that was too long."""
        began = time.monotonic()
        while self.ejected():
            if time.monotonic() - began > seconds:
                return None
            time.sleep(0.01)
        return time.monotonic() - began

    def turns(self, worker: int) -> Iterator[tuple[float, Step]]:
        """Yield when each call of a worker is due, and what it is, until the end."""
        traffic = Traffic(self.truth, worker, self.part.seed, self.part.deletes)
        every = self.part.workers / self.part.rate
        due = self.due + worker / self.part.rate
        while not self.stopped.is_set():
            yield due, traffic.next()
            due += every

    def client_of(self, worker: int) -> Any:
        """Return the client of a worker: `Client` or `AsyncClient`."""
        return self.clients[worker % len(self.clients)]

    def _tasks(self) -> int:
        return 0

    @abstractmethod
    def close(self) -> None:
        """Close the clients."""

    @abstractmethod
    def _client(self, way: str) -> Any: ...  # of either kind

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _join(self) -> None: ...


class ThreadsPlayer(Player):
    """Workers are threads with a blocking client."""

    def _client(self, way: str) -> Client:
        return Client(
            self.part.urls,
            timeout=self.part.timeout,
            on_error=way,
            observers=[self.watch],
            **self.part.options,
        )

    def _begin(self) -> None:
        self._threads = [Worker(partial(self._work, worker)) for worker in range(self.part.workers)]

    def _work(self, worker: int) -> None:
        book, client = self.books[worker], self.client_of(worker)
        for due, step in self.turns(worker):
            time.sleep(max(0.0, due - time.monotonic()))
            self.call(book, client, step)

    @staticmethod
    def call(book: Book, client: Client, step: Step) -> None:
        """Make one call."""
        with book.begin(step) as turn:
            if step.kind == "get":
                turn.answer = client.get(key_of(step.number))
            elif step.kind == "set":
                turn.answer = client.set(key_of(step.number), turn.value)
            else:
                turn.answer = client.delete(key_of(step.number))

    def read_all(self, numbers: list[int]) -> Counter[str]:
        """Read keys one after the other; return the results."""
        book = Book(self.truth, self.nodes, keeps=False)
        for number in numbers:
            self.call(book, self.clients[0], Step("get", number))
        return book.tally

    def _join(self) -> None:
        for thread in self._threads:
            thread.end()

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients:
            client.close()


class LoopPlayer(Player):
    """An asyncio client, on an event loop in its own thread."""

    def __init__(self, part: Part) -> None:
        self.loop = Loop()
        super().__init__(part)

    def _client(self, way: str) -> AsyncClient:
        return AsyncClient(
            self.part.urls,
            timeout=self.part.timeout,
            on_error=way,
            observers=[self.watch],
            **self.part.options,
        )

    @staticmethod
    async def call(book: Book, client: AsyncClient, step: Step) -> None:
        """Make one call."""
        with book.begin(step) as turn:
            if step.kind == "get":
                turn.answer = await client.get(key_of(step.number))
            elif step.kind == "set":
                turn.answer = await client.set(key_of(step.number), turn.value)
            else:
                turn.answer = await client.delete(key_of(step.number))

    async def _read_each(self, numbers: list[int]) -> Counter[str]:
        book = Book(self.truth, self.nodes, keeps=False)
        for number in numbers:
            await self.call(book, self.clients[0], Step("get", number))
        return book.tally

    def read_all(self, numbers: list[int]) -> Counter[str]:
        """Read keys one after the other; return the results."""
        return self.loop.run(lambda: self._read_each(numbers))

    def block_loop(self, seconds: float) -> tuple[float, float]:
        """Block the loop for `seconds` during reads; return when that began and ended."""
        return self.loop.run(lambda: self._block(seconds))

    async def _block(self, seconds: float) -> tuple[float, float]:
        steps = [Step("get", number) for number in range(UNDER_WAY)]
        reads = [
            asyncio.ensure_future(self.call(self.books[0], self.clients[0], step)) for step in steps
        ]
        for _ in range(2):  # turns: they have just been sent then
            await asyncio.sleep(0)
        began = time.monotonic()
        time.sleep(seconds)  # noqa: ASYNC251 - it is to stand still
        ended = time.monotonic()
        await asyncio.gather(*reads)
        return began, ended

    def _tasks(self) -> int:
        return self.loop.tasks()

    def close(self) -> None:
        """Close the clients, and leave the loop running."""
        for client in self.clients:
            self.loop.run(client.aclose)


class TasksPlayer(LoopPlayer):
    """Workers are tasks of one event loop."""

    def _begin(self) -> None:
        self.loop.run(self._begin_tasks)

    async def _begin_tasks(self) -> None:
        self._running = [
            asyncio.ensure_future(self._work(worker)) for worker in range(self.part.workers)
        ]
        self._metering = asyncio.ensure_future(self.meter.measure_loop())

    async def _work(self, worker: int) -> None:
        book, client = self.books[worker], self.client_of(worker)
        for due, step in self.turns(worker):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.call(book, client, step)

    def _join(self) -> None:
        self.loop.run(self._join_tasks)

    async def _join_tasks(self) -> None:
        await asyncio.gather(*self._running)
        self._metering.cancel()
        await asyncio.gather(self._metering, return_exceptions=True)


class RunsPlayer(LoopPlayer):
    """One thread with a new event loop for each call, as in frameworks that bridge to asyncio."""

    def _begin(self) -> None:
        self._thread = Worker(self._work)

    def _work(self) -> None:
        for due, step in self.turns(0):
            time.sleep(max(0.0, due - time.monotonic()))
            asyncio.run(self.call(self.books[0], self.clients[0], step))

    def _join(self) -> None:
        self._thread.end()
