"""The calls to nodes, as `shardcache_operations_total` and `shardcache_operation_duration_seconds`.

In a single process they are plain numbers until the registry is collected, which costs a call a third
of what children of prometheus_client do. In its multiprocess mode other processes read the numbers, so
there each call writes to children, which are bound once.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shardcache import CallFinished

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

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


class Calls(Protocol):
    """Where calls are counted and measured."""

    def record(self, event: CallFinished) -> None:
        """Count a call, or each key that it read, and measure it."""


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


class OwnCalls(Collector):
    """The calls of this process, in a registry that only this process collects."""

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


class SharedCalls:
    """The calls of this process, written where another process collects those of all.

    The children of each metric are bound once: `labels()` costs about as much as to count.
    """

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        self._operations = Counter(*OPERATIONS, OPERATION_LABELS, registry=registry)
        self._durations = Histogram(*DURATIONS, DURATION_LABELS, buckets=buckets, registry=registry)
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def record(self, event: CallFinished) -> None:
        """Count a call, or each key that it read, and measure it."""
        command, node, seconds, error, hits, misses, _, _ = event
        name = node.name
        if hits:
            self._count(command, "hit", name, hits)
        if misses:
            self._count(command, "miss", name, misses)
        if error is not None:
            self._count(command, "error" if seconds else "refused", name, 1)
            if not seconds:  # it was not sent
                return
        elif not hits and not misses:
            self._count(command, "ok", name, 1)
        histogram = self._histograms.get((command, name))
        if histogram is None:
            histogram = self._histograms[command, name] = self._durations.labels(command, name)
        histogram.observe(seconds)

    def _count(self, command: str, result: str, node: str, number: int) -> None:
        labels = command, result, node
        counter = self._counters.get(labels)
        if counter is None:
            counter = self._counters[labels] = self._operations.labels(*labels)
        counter.inc(number)


def is_multiprocess() -> bool:
    """Return whether prometheus_client writes to files for another process to collect."""
    return DIRECTORY in os.environ


def calls_of(registry: CollectorRegistry, buckets: Sequence[float]) -> Calls:
    """Return where calls are counted in the mode of this process."""
    return (SharedCalls if is_multiprocess() else OwnCalls)(registry, buckets)
