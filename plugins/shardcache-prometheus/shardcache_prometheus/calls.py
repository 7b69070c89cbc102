"""The calls to nodes, as `shardcache_operations_total` and `shardcache_operation_duration_seconds`.

They are plain numbers, which costs a call a third of what children of prometheus_client do. They are read
when the registry is collected. In prometheus_client's multiprocess mode another process collects, so
there they are also written to its files, many calls at once.
"""

from __future__ import annotations

import atexit
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass

from shardcache import CallFinished

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
EVERY = 0.1  # seconds between two writes to prometheus_client's files

OPERATIONS = (
    "shardcache_operations",
    "Keys read from a node (hit, miss), and its other calls (ok, error; refused: not sent).",
)
OPERATION_LABELS = ("operation", "result", "node")
DURATIONS = (
    "shardcache_operation_duration_seconds",
    "Calls that were sent to a node, from the call to its reply or error.",
)
DURATION_LABELS = ("operation", "node")
RESULTS = ("hit", "miss", "ok", "error", "refused")


class _Numbers:
    """The calls of one operation to one node.

    They are plain numbers: CPython switches threads only at calls and jumps, and adding to one has
    neither between its load and its store, so no count is lost.
    """

    __slots__ = ("buckets", "error", "hit", "miss", "ok", "refused", "seconds")

    def __init__(self, buckets: int) -> None:
        self.hit = self.miss = self.ok = self.error = self.refused = 0
        self.seconds = 0.0
        self.buckets = [0] * buckets


class Calls(Collector):
    """The calls of this process, in a registry that this process collects."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        self._bounds = buckets
        self._names = [*(repr(float(bound)) for bound in buckets), "+Inf"]
        self._numbers: dict[tuple[str, str], _Numbers] = {}
        registry.register(self)

    def record(self, event: CallFinished) -> None:
        """Count a call, or each key that it read, and measure it."""
        command, node, seconds, error, hits, misses, _, _ = event
        numbers = self._numbers.get((command, node.name)) or self._add(command, node.name)
        if hits or misses:
            numbers.hit += hits
            numbers.miss += misses
        elif error is None:
            numbers.ok += 1
        if error is not None:
            if not seconds:  # it was not sent
                numbers.refused += 1
                return
            numbers.error += 1
        place = bisect_left(self._bounds, seconds)
        numbers.buckets[place] += 1
        numbers.seconds += seconds

    def _add(self, command: str, node: str) -> _Numbers:
        return self._numbers.setdefault((command, node), _Numbers(len(self._names)))

    def collect(self) -> Iterator[Metric]:
        """Yield both metrics."""
        operations, durations = self.describe()
        for (command, node), numbers in list(self._numbers.items()):
            for result in RESULTS:
                if count := getattr(numbers, result):
                    operations.add_metric((command, result, node), count)
            counts = list(accumulate(numbers.buckets))
            if counts[-1]:
                cumulative = list(zip(self._names, counts, strict=True))
                durations.add_metric((command, node), cumulative, numbers.seconds)
        yield operations
        yield durations

    def describe(self) -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        """Return both metrics without samples."""
        return (
            CounterMetricFamily(*OPERATIONS, labels=OPERATION_LABELS),
            HistogramMetricFamily(*DURATIONS, labels=DURATION_LABELS),
        )


class SharedCalls(Calls):
    """The calls of this process, also written where another process collects those of all.

    A call writes what was counted since the last write, ten times a second at most, because to write
    costs more than to count. The end of the process writes the rest. `on_write` is called with each write.
    """

    _files: dict[tuple[str, str], _File]
    _due: float
    _writing: threading.Lock

    def __init__(
        self,
        registry: CollectorRegistry,
        buckets: Sequence[float],
        on_write: Callable[[], None],
    ) -> None:
        super().__init__(registry, buckets)
        self._on_write = on_write
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.write, 0.0)

    def record(self, event: CallFinished) -> None:
        """Count a call, or each key that it read, and measure it; write if that is due."""
        super().record(event)
        now = event.started + event.seconds
        if now >= self._due:
            self.write(now)

    def write(self, now: float) -> None:
        """Write what is new; do nothing while another thread does so. `now` is a time of `time.monotonic`."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            self._due = now + EVERY
            for names, numbers in list(self._numbers.items()):
                file = self._files.get(names)
                if file is None:
                    file = self._files[names] = _File(*names, self._names)
                file.write(numbers)
            self._on_write()
        finally:
            self._writing.release()

    def _begin(self) -> None:
        """Begin with nothing: a forked child has not made the calls of its parent."""
        self._numbers = {}
        self._files = {}
        self._due = 0.0
        self._writing = threading.Lock()  # in a child, the thread that held it is gone


class _Value(Protocol):
    """A number in a file of prometheus_client."""

    def inc(self, amount: float) -> None:
        """Add to it."""


class _File:
    """What was written of the calls of one operation to one node."""

    def __init__(self, command: str, node: str, bounds: Sequence[str]) -> None:
        self._command, self._node, self._bounds = command, node, bounds
        self._written = _Numbers(len(bounds))
        self._counts: dict[str, _Value] = {}
        self._buckets: list[_Value] = []
        self._seconds: _Value | None = None

    def write(self, numbers: _Numbers) -> None:
        """Add what is new in the numbers."""
        written = self._written
        for result in RESULTS:
            count = getattr(numbers, result)
            if added := count - getattr(written, result):
                self._count(result).inc(added)
                setattr(written, result, count)
        seconds, buckets = numbers.seconds, list(numbers.buckets)
        if buckets == written.buckets:
            return
        if self._seconds is None:
            self._seconds = self._create_histogram()
        self._seconds.inc(seconds - written.seconds)
        for value, count, before in zip(self._buckets, buckets, written.buckets, strict=True):
            if count != before:
                value.inc(count - before)
        written.seconds, written.buckets = seconds, buckets

    def _count(self, result: str) -> _Value:
        """Return the number of one result."""
        count = self._counts.get(result)
        if count is None:
            name, text = OPERATIONS
            labels = self._command, result, self._node
            count = ValueClass("counter", name, f"{name}_total", OPERATION_LABELS, labels, text)
            self._counts[result] = count
        return count

    def _create_histogram(self) -> _Value:
        """Create the number of each bucket; return that of the seconds."""
        name, text = DURATIONS
        labels = self._command, self._node
        self._buckets = [
            ValueClass(
                *("histogram", name, f"{name}_bucket"),
                *((*DURATION_LABELS, "le"), (*labels, bound), text),
            )
            for bound in self._bounds
        ]
        seconds: _Value = ValueClass(
            "histogram", name, f"{name}_sum", DURATION_LABELS, labels, text
        )
        return seconds


def is_multiprocess() -> bool:
    """Return whether prometheus_client writes to files for another process to collect."""
    return DIRECTORY in os.environ


def calls_of(
    registry: CollectorRegistry, buckets: Sequence[float], on_write: Callable[[], None]
) -> Calls:
    """Return where calls are counted in the mode of this process."""
    if is_multiprocess():
        return SharedCalls(registry, buckets, on_write)
    return Calls(registry, buckets)
