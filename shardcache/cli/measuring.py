"""How long calls of a client take on given nodes, against plain sockets that do the same in turn."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple

from shardcache.cli.floor import Floor, FloorError, exchange
from shardcache.clients.blocking import Client
from shardcache.core.placement.nodes import Node
from shardcache.errors import ShardCacheError

NAMESPACE: Final = "shardcache-bench"
OPERATIONS: Final = ("get", "set", "get_many", "set_many")
SLICE: Final = 0.1  # seconds of calls before the other side has its turn
TTL: Final = 60  # seconds beyond a step; keys that cannot be deleted end with it
SEARCH: Final = 200  # keys looked at for each key wanted, when one kind of node owns few

Call = Callable[[], object]


class Load(NamedTuple):
    """What is measured: sizes of values in bytes, keys, keys of a batch, threads, seconds of a step."""

    sizes: Sequence[int]
    keys: int
    batch: int
    threads: int
    seconds: float


class Step(NamedTuple):
    """One operation, with values of one size, on the nodes of one kind."""

    kind: str
    size: int
    operation: str


class Timing(NamedTuple):
    """The calls of one side: how many a second, the median and 99th percentile, and CPU seconds a call."""

    calls: int
    operations_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds: float


class Result(NamedTuple):
    """What a step measured; `raw` is `None` where plain sockets cannot ask the nodes."""

    step: Step
    timing: Timing
    raw: Timing | None

    @property
    def over_raw(self) -> float | None:
        """Return how many times the median of plain sockets a call takes."""
        return None if self.raw is None else self.timing.p50_seconds / self.raw.p50_seconds


class Measurement:
    """A measurement under its own keys, which `cleaned_up` deletes."""

    def __init__(self, client: Client, load: Load) -> None:
        self._client = client.view(namespace=f"{NAMESPACE}-{secrets.token_hex(4)}")
        self._load = load
        self._keys = self._keys_by_kind()
        self._ttl = TTL + int(2 * load.seconds)
        # Of a seed: two runs store the same. No codec can make them smaller.
        self._values = {size: random.Random(size).randbytes(size) for size in load.sizes}  # noqa: S311

    @property
    def steps(self) -> list[Step]:
        """Return all steps, in the order in which they are measured."""
        return [
            Step(kind, size, operation)
            for kind in self._keys
            for size in self._load.sizes
            for operation in OPERATIONS
        ]

    @contextmanager
    def cleaned_up(self) -> Iterator[None]:
        """Delete all keys at the end of the block, however it comes."""
        try:
            yield
        finally:
            for keys in self._keys.values():
                with suppress(ShardCacheError):  # what stays ends with its ttl
                    self._client.delete_many(keys)

    def measure(self, step: Step) -> Result:
        """Measure one step; the client and plain sockets call in turn."""
        value = self._values[step.size]
        keys = self._keys[step.kind]
        self._client.set_many(dict.fromkeys(keys, value), self._ttl)
        ours = _Side([self._calls(step, value)] * self._load.threads)
        with ExitStack() as stack:
            sides = [ours]
            with suppress(OSError, FloorError):
                sides.append(_Side(self._floors(stack, step, value)))
            if self._load.threads == 1:
                _take_turns(sides, self._load.seconds, None)
            else:
                workers = stack.enter_context(ThreadPoolExecutor(self._load.threads))
                _take_turns(sides, self._load.seconds, workers)
        raw = sides[1].timing if len(sides) > 1 and not sides[1].failed else None
        return Result(step, ours.timing, raw)

    def _calls(self, step: Step, value: bytes) -> list[Call]:
        client, keys = self._client, self._keys[step.kind]
        batches = self._batches(keys)
        if step.operation == "get":
            return [partial(client.get, key) for key in keys]
        if step.operation == "set":
            return [partial(client.set, key, value, self._ttl) for key in keys]
        if step.operation == "get_many":
            return [partial(client.get_many, batch) for batch in batches]
        return [
            partial(client.set_many, dict.fromkeys(batch, value), self._ttl) for batch in batches
        ]

    def _floors(self, stack: ExitStack, step: Step, value: bytes) -> list[list[Call]]:
        """Return the calls of plain sockets, some for each thread; raise `FloorError` if they cannot."""
        if not Floor.knows(step.kind):
            raise FloorError(f"no plain socket speaks {step.kind}")
        floors: list[list[Call]] = []
        for _ in range(self._load.threads):
            floor = Floor(self._nodes_of(step.kind))
            stack.callback(floor.close)
            floors.append([partial(exchange, parts) for parts in self._parts(floor, step, value)])
        return floors

    def _parts(self, floor: Floor, step: Step, value: bytes) -> Iterator[Any]:
        keys = self._keys[step.kind]
        groups = self._batches(keys) if step.operation.endswith("many") else [[key] for key in keys]
        for group in groups:
            names = {self._client.hashed(key): self._client.node_for(key).name for key in group}
            if step.operation.startswith("get"):
                yield floor.get(names)
            else:
                yield floor.set(names, value, self._ttl)

    def _batches(self, keys: Sequence[str]) -> list[Sequence[str]]:
        size = min(self._load.batch, len(keys))
        return [keys[start : start + size] for start in range(0, len(keys) - size + 1, size)]

    def _nodes_of(self, kind: str) -> list[Node]:
        return [node for node in self._client.nodes if node.address.scheme == kind]

    def _keys_by_kind(self) -> Mapping[str, list[str]]:
        """Return keys for each kind of node, which its nodes own."""
        wanted = self._load.keys
        found: dict[str, list[str]] = {node.address.scheme: [] for node in self._client.nodes}
        for number in itertools.islice(itertools.count(), SEARCH * wanted):
            keys = found[self._client.node_for(key := f"{number:08d}").address.scheme]
            if len(keys) < wanted:
                keys.append(key)
            if all(len(keys) == wanted for keys in found.values()):
                break
        return {kind: keys for kind, keys in found.items() if keys}


class _Side:
    """One of the two that call in turn: for each thread its calls, and how long they took."""

    def __init__(self, calls: Sequence[Sequence[Call]]) -> None:
        self._calls = [itertools.cycle(each) for each in calls]
        self._times = [array("d") for _ in calls]
        self._seconds = self._cpu = 0.0
        self.failed = False

    def call(self, until: float, workers: ThreadPoolExecutor | None) -> None:
        """Make calls until a moment of the monotonic clock, in each thread."""
        wall, cpu = time.perf_counter(), time.process_time()
        each = zip(self._calls, self._times, strict=True)
        if workers is None:
            for calls, times in each:
                _call_until(calls, times, until)
        else:
            running = [workers.submit(_call_until, *one, until) for one in each]
            for done in running:
                done.result()
        self._seconds += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu

    @property
    def timing(self) -> Timing:
        """Return the figures of all calls."""
        times = sorted(itertools.chain(*self._times))
        count = len(times)
        return Timing(
            calls=count,
            operations_per_second=count / self._seconds,
            p50_seconds=times[count // 2],
            p99_seconds=times[min(count - 1, count * 99 // 100)],
            cpu_seconds=self._cpu / count,
        )


def _take_turns(sides: Sequence[_Side], seconds: float, workers: ThreadPoolExecutor | None) -> None:
    """Call the sides in turn, so that a busy moment of the machine or a node hits both."""
    end = time.monotonic() + seconds
    for side in sides:  # connects, and is not the first alone to do so
        side.call(time.monotonic(), workers)
    while time.monotonic() < end:
        for side in sides:
            if side.failed:
                continue
            try:
                side.call(time.monotonic() + min(SLICE, seconds / 4), workers)
            except (OSError, FloorError):  # a value was evicted, or a socket lost
                side.failed = True


def _call_until(calls: Iterator[Call], times: array[float], until: float) -> None:
    """Make calls, one at least, and note how long each took."""
    while True:
        call = next(calls)
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        if time.monotonic() >= until:
            return
