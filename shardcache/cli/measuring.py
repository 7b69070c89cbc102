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
KEYS: Final = 1000
STORED: Final = 16 * 1024**2  # bytes of values of one size, unless the number of keys is given
BATCH: Final = 100
CARRIED: Final = 2 * 1024**2  # bytes of values in a batch, unless its number of keys is given
PIECE: Final = 256 * 1024  # bytes of values that are written at once before a step
RANDOM: Final = 1024**2  # bytes that are drawn at once; Python draws 256 MiB at most
RETRIES: Final = 5  # of a piece that could not be stored
PAUSE: Final = 0.3  # seconds before each
DELETED: Final = 1000  # keys that are deleted at once

Call = Callable[[], object]


class Load(NamedTuple):
    """What is measured: sizes of values in bytes, keys, keys of a batch, threads, seconds of a step.

    `None` for keys or a batch means as many as suit the size of the values.
    """

    sizes: Sequence[int]
    keys: int | None
    batch: int | None
    threads: int
    seconds: float

    def keys_of(self, size: int) -> int:
        """Return how many values of a size are stored."""
        if self.keys is not None:
            return self.keys
        return max(2, min(KEYS, STORED // size))

    def batch_of(self, size: int) -> int:
        """Return how many keys a batch of values of a size has."""
        batch = max(2, min(BATCH, CARRIED // size)) if self.batch is None else self.batch
        return min(batch, self.keys_of(size))


class Step(NamedTuple):
    """One operation, with values of one size, on the nodes of one kind."""

    kind: str
    size: int
    operation: str


class Timing(NamedTuple):
    """The calls of one side: how many, also a second, median and 99th percentile, CPU seconds a call."""

    calls: int
    operations_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds: float


class Result(NamedTuple):
    """What a step measured; `raw` is `None` where plain sockets cannot ask the nodes.

    `missed` is the share of the keys read that were gone. Of all calls `failed` failed, the last with `error`.
    """

    step: Step
    timing: Timing
    raw: Timing | None
    missed: float = 0
    failed: int = 0
    error: ShardCacheError | None = None

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
        self._values = {size: _value_of(size) for size in load.sizes}

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
                for piece in _pieces(keys, DELETED):
                    with suppress(ShardCacheError):  # what stays ends with its ttl
                        self._client.delete_many(piece)

    def measure(self, step: Step) -> Result:
        """Measure one step; the client and plain sockets call in turn. Raise the error if no call succeeded."""
        value = self._values[step.size]
        for piece in _pieces(self._keys_of(step), max(1, PIECE // step.size)):
            self._fill(piece, value)
        before = self._hits_and_misses()
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
        timing = ours.timing
        if ours.error is not None and ours.failed == timing.calls:
            raise ours.error
        raw = sides[1].timing if len(sides) > 1 and not sides[1].stopped else None
        hits, misses = (
            now - then for now, then in zip(self._hits_and_misses(), before, strict=True)
        )
        missed = misses / (hits + misses) if misses else 0.0
        return Result(step, timing, raw, missed, ours.failed, ours.error)

    def _fill(self, keys: Sequence[str], value: bytes) -> None:
        """Store a value under each key before a step; a reply that is late, or a node that was ejected for it, ends no run."""
        for _ in range(RETRIES):
            with suppress(ShardCacheError):
                self._client.set_many(dict.fromkeys(keys, value), self._ttl)
                return
            time.sleep(PAUSE)
        self._client.set_many(dict.fromkeys(keys, value), self._ttl)

    def _hits_and_misses(self) -> tuple[float, float]:
        counted = self._client.counters().values()
        return sum(each["hits"] for each in counted), sum(each["misses"] for each in counted)

    def _calls(self, step: Step, value: bytes) -> list[Call]:
        client, keys = self._client, self._keys_of(step)
        batches = self._batches(step)
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
        many = step.operation.endswith("many")
        groups = self._batches(step) if many else [[key] for key in self._keys_of(step)]
        for group in groups:
            names = {self._client.hashed(key): self._client.node_for(key).name for key in group}
            if step.operation.startswith("get"):
                yield floor.get(names)
            else:
                yield floor.set(names, value, self._ttl)

    def _keys_of(self, step: Step) -> Sequence[str]:
        return self._keys[step.kind][: self._load.keys_of(step.size)]

    def _batches(self, step: Step) -> list[Sequence[str]]:
        """Return the keys in batches, all of one size: what is left over is not asked for."""
        keys = self._keys_of(step)
        size = min(self._load.batch_of(step.size), len(keys))
        return [piece for piece in _pieces(keys, size) if len(piece) == size]

    def _nodes_of(self, kind: str) -> list[Node]:
        return [node for node in self._client.nodes if node.address.scheme == kind]

    def _keys_by_kind(self) -> Mapping[str, list[str]]:
        """Return keys for each kind of node, which its nodes own."""
        wanted = max(map(self._load.keys_of, self._load.sizes))
        found: dict[str, list[str]] = {node.address.scheme: [] for node in self._client.nodes}
        for number in itertools.islice(itertools.count(), SEARCH * wanted):
            keys = found[self._client.node_for(key := f"{number:08d}").address.scheme]
            if len(keys) < wanted:
                keys.append(key)
            if all(len(keys) == wanted for keys in found.values()):
                break
        return {kind: keys for kind, keys in found.items() if keys}


def _value_of(size: int) -> bytes:
    """Return bytes that are the same in each run, and that no codec can make smaller."""
    source = random.Random(size)  # noqa: S311 - no secret
    pieces = (source.randbytes(min(RANDOM, size - start)) for start in range(0, size, RANDOM))
    return b"".join(pieces)


def _pieces(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the keys in order, `size` at a time."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


class _Side:
    """One of the two that call in turn: for each thread its calls, and how long they took.

    What a client raises is counted; what a plain socket raises stops its side.
    """

    def __init__(self, calls: Sequence[Sequence[Call]]) -> None:
        self._calls = [itertools.cycle(each) for each in calls]
        self._times = [array("d") for _ in calls]
        self._seconds = self._cpu = 0.0
        self._errors: list[ShardCacheError] = []  # a list, because threads append to it
        self.stopped = False

    @property
    def failed(self) -> int:
        """Return how many calls failed."""
        return len(self._errors)

    @property
    def error(self) -> ShardCacheError | None:
        """Return the last error, if there was one."""
        return self._errors[-1] if self._errors else None

    def call(self, until: float, workers: ThreadPoolExecutor | None) -> None:
        """Make calls until a moment of the monotonic clock, in each thread."""
        wall, cpu = time.perf_counter(), time.process_time()
        each = zip(self._calls, self._times, strict=True)
        if workers is None:
            for calls, times in each:
                _call_until(calls, times, self._errors, until)
        else:
            running = [workers.submit(_call_until, *one, self._errors, until) for one in each]
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
            if side.stopped:
                continue
            try:
                side.call(time.monotonic() + min(SLICE, seconds / 4), workers)
            except (OSError, FloorError):  # a value was evicted, or a socket lost
                side.stopped = True


def _call_until(
    calls: Iterator[Call], times: array[float], errors: list[ShardCacheError], until: float
) -> None:
    """Make calls, one at least, and note how long each took, and what it raised."""
    while True:
        call = next(calls)
        began = time.perf_counter()
        try:
            call()
        except ShardCacheError as error:
            errors.append(error)
        times.append(time.perf_counter() - began)
        if time.monotonic() >= until:
            return
