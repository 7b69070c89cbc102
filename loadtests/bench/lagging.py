"""Batches over eight nodes of which one answers late, or not at all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.bench import Bench
from bench.machine import run_servers
from bench.rounds import Figure, Figures
from bench.workload import TTL, VALUE, keys_of
from shardcache import Client
from shardcache.testing import FaultProxy

LATE: Final = 0.020  # seconds
TIMEOUT: Final = 0.25  # seconds
BATCH: Final = 100


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure `get_many` with one node 20 ms away, then with one node stopped."""
    keys = keys_of("late", BATCH)
    rounds = bench.plan.scaled(30, 3)
    with run_servers("memcached") as servers, FaultProxy(servers[0].url) as proxy:
        urls = [proxy.url, *(server.url for server in servers[1:])]
        with Client(urls, timeout=5) as client:
            client.set_many(dict.fromkeys(keys, VALUE), TTL)
            far = next(key for key in keys if client.node_for(key).url == proxy.url)
            before = [_seconds(client.get_many, keys) for _ in range(rounds)]
            proxy.delay(LATE, "replies")
            alone = [_seconds(client.get, far) for _ in range(rounds)]
            late = [_seconds(client.get_many, keys) for _ in range(rounds)]
        yield (
            "get_many(100), 8 memcached, one 20 ms away",
            {
                "all nodes well": Figure(min(before)),
                "get of the slow node": Figure(statistics.median(alone)),
                "get_many": Figure(statistics.median(late)),
            },
        )
    with run_servers("memcached") as servers:
        urls = [server.url for server in servers]
        with Client(urls, timeout=TIMEOUT) as client:
            client.set_many(dict.fromkeys(keys, VALUE), TTL)
            before = [_seconds(client.get_many, keys) for _ in range(rounds)]
            servers[0].pause()
            after = [_seconds(client.get_many, keys) for _ in range(2 * rounds)]
            servers[0].resume()
        waited = [seconds for seconds in after if seconds > TIMEOUT / 2]
        rest = [seconds for seconds in after if seconds <= TIMEOUT / 2]
        yield (
            "get_many(100), 8 memcached, one stopped",
            {
                "all nodes well": Figure(statistics.median(before)),
                "once it is known": Figure(statistics.median(rest)),
                "calls that waited": Figure(len(waited), unit="calls"),
                "longest, in timeouts": Figure(max(after) / TIMEOUT, unit="timeouts"),
            },
        )


def _seconds(call: Callable[[Any], Any], argument: object) -> float:
    began = time.perf_counter()
    call(argument)
    return time.perf_counter() - began
