"""What observers cost: microseconds of processor time of a call with each, in one interleaved run.

`python loadtests/observers.py` needs the plugins shardcache-prometheus and shardcache-opentelemetry,
and memcached. Each round times every variant in turn, in the time of the thread, which leaves out what
other programs take. `in all` is the median of the differences from a client without observers, each
within a round; `own` that from an observer that does nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median

from shardcache import Client, Observer
from shardcache.testing.servers import start_memcached

CALLS = 200  # few, so that the variants of a round meet the same machine
ROUNDS = 150


class Nothing(Observer):
    """An observer of calls that does nothing."""

    calls_client = False

    def call_finished(self, event: object) -> None:
        """Do nothing."""


def observers() -> Iterator[tuple[str, list[object]]]:
    """Yield the observers of each variant, by its name."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - after the environment is set
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from prometheus_client import CollectorRegistry  # noqa: PLC0415
    from shardcache_opentelemetry import OpenTelemetryObserver  # noqa: PLC0415
    from shardcache_prometheus import PrometheusObserver  # noqa: PLC0415

    yield "none", []
    yield "nothing", [Nothing()]
    yield "prometheus", [PrometheusObserver(registry=CollectorRegistry())]
    yield "opentelemetry, no SDK", [OpenTelemetryObserver()]
    meters = MeterProvider([InMemoryMetricReader()])
    yield (
        "opentelemetry, SDK",
        [OpenTelemetryObserver(tracer_provider=TracerProvider(), meter_provider=meters)],
    )


def seconds_of(call: Callable[[], object]) -> float:
    """Return the processor's seconds of one call, over many."""
    began = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - began) / CALLS


def measure(url: str) -> None:
    """Print a line for each variant and outcome."""
    with ExitStack() as clients:
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for name, each in observers():
            client = clients.enter_context(Client(url, observers=each))
            client.set("k", 1)
            calls["hit", name] = lambda client=client: client.get("k")
            calls["miss", name] = lambda client=client: client.get("missing")
        rounds = [{what: seconds_of(call) for what, call in calls.items()} for _ in range(ROUNDS)]
    scheme = url.partition(":")[0]
    for outcome, name in calls:
        seconds = median(each[outcome, name] for each in rounds)
        in_all, own = (
            median(each[outcome, name] - each[outcome, other] for each in rounds)
            for other in ("none", "nothing")
        )
        print(  # noqa: T201 - its purpose
            f"{scheme:9} {outcome:4} {name:21} {seconds * 1e6:6.1f} µs"
            f"  in all {in_all * 1e6:+5.1f} µs  own {own * 1e6:+5.1f} µs"
        )


def main() -> None:
    """Measure over nodes in memory and over a memcached, in prometheus_client's mode of the arguments."""
    with tempfile.TemporaryDirectory() as directory:
        if "--multiprocess" in sys.argv:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        measure("memory://a")
        server = start_memcached()
        try:
            measure(server.url)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
