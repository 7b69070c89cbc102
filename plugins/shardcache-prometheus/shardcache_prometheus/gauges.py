"""What the clients of this process are like now: circuits and connections, by node.

In a single process they are read when the registry is collected. In prometheus_client's multiprocess
mode the process that collects is another one, so each process writes its own down: once a second
while there are calls, and whenever a node is ejected or restored.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeAlias
from weakref import ref

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shardcache import ClientClosedError
from shardcache.core.events import ObservedClient, ObservedCounters
from shardcache_prometheus.calls import is_multiprocess

EVERY = 1.0  # seconds between two readings in multiprocess mode

Labels: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = defaultdict[Labels, int]


class Gauges(Collector):
    """The gauges of one registry, and the clients that they are read from.

    It is a collector that has no metrics of its own: to be collected before the gauges is its way to
    keep them up to date. Clients are held weakly.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._clients: list[ref[ObservedClient]] = []
        self._due = 0.0
        if is_multiprocess():
            os.register_at_fork(after_in_child=self._read_soon)
        registry.register(self)
        self._gauges = (
            Gauge(
                "shardcache_circuit_open",
                "1 while a client of the process does not ask the node, because it is ejected.",
                ["node"],
                registry=registry,
                multiprocess_mode="livemax",
            ),
            Gauge(
                "shardcache_pool_connections",
                "Open connections: busy with a call, or idle.",
                ["node", "state"],
                registry=registry,
                multiprocess_mode="livesum",
            ),
            Gauge(
                "shardcache_pool_size",
                "The most connections that blocking clients may open.",
                ["node"],
                registry=registry,
                multiprocess_mode="livesum",
            ),
        )
        self._shown: dict[Gauge, set[Labels]] = {gauge: set() for gauge in self._gauges}

    def add(self, client: ObservedClient) -> bool:
        """Read a client from now on; return whether that is new."""
        alive = self._alive()
        if any(each is client for each in alive):
            return False
        self._clients = [ref(each) for each in (*alive, client)]
        return True

    def collect(self) -> Iterable[Metric]:
        """Bring the gauges up to date; return no metric."""
        self.read()
        return ()

    def describe(self) -> Iterable[Metric]:
        """Return no metric, without reading the clients."""
        return ()

    def read_if_due(self) -> None:
        """Bring the gauges up to date if that was more than a second ago."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY
            self.read()

    def read(self) -> None:
        """Set each gauge to what holds over all clients; to zero for a node that is gone."""
        circuits: Numbers = defaultdict(int)
        connections: Numbers = defaultdict(int)
        sizes: Numbers = defaultdict(int)
        for counted in self._counters():
            for node, circuit in counted.circuits.items():
                circuits[node,] |= circuit != "closed"
            for node, use in counted.pools.items():
                connections[node, "busy"] += use.busy
                connections[node, "idle"] += use.open - use.busy
                sizes[node,] += use.size or 0
        for gauge, numbers in zip(self._gauges, (circuits, connections, sizes), strict=True):
            shown = self._shown[gauge]
            shown.update(numbers)
            for labels in shown.copy():
                gauge.labels(*labels).set(numbers.get(labels, 0))

    def _read_soon(self) -> None:
        """Read with the next call: a forked child has written nothing yet."""
        self._due = 0.0

    def _counters(self) -> Iterator[ObservedCounters]:
        for client in self._alive():
            with suppress(ClientClosedError):
                yield client.counters()

    def _alive(self) -> list[ObservedClient]:
        return [client for each in self._clients if (client := each()) is not None]
