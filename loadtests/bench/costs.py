"""What a process pays before its first call: imports, clients and their memory."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Final

from bench.bench import Bench
from bench.rounds import FEWEST, Figure, Figures
from shardcache import Client

# By the peer that a program needs; `None` for what is always there.
PROGRAMS: Final[dict[str, tuple[str | None, str]]] = {
    "import asyncio": (None, "import asyncio"),
    "import shardcache": (None, "import shardcache"),
    "first client, memcached": (
        None,
        "from shardcache import Client; Client('memcached://127.0.0.1:1')",
    ),
    "first client, Redis": (None, "from shardcache import Client; Client('redis://127.0.0.1:1')"),
    "pymemcache": ("pymemcache", "import pymemcache.client.hash"),
    "pylibmc": ("pylibmc", "import pylibmc"),
    "python-memcached": ("python-memcached", "import memcache"),
    "meta-memcache": ("meta-memcache", "import meta_memcache"),
    "emcache": ("emcache", "import emcache"),
    "redis-py": ("redis-py", "import redis"),
    "valkey-glide-sync": ("valkey-glide-sync", "import glide_sync"),
    "coredis": ("coredis", "import coredis"),
    "dogpile.cache": ("dogpile.cache", "import dogpile.cache"),
    "cashews": ("cashews", "import cashews"),
}
BARE: Final = "pass"

MEMORY: Final = """
import gc, json, sys, tracemalloc
from shardcache import Client
urls = [f"memcached://10.1.0.{number}:11211" for number in range(int(sys.argv[1]))]
kept = [Client(urls)]  # what clients of equal nodes share, and what is imported, is there
kept[0].node_for("any")
gc.collect()
tracemalloc.start()
more = [Client(urls) for _ in range(4)]
for client in more:
    client.node_for("any")
gc.collect()
each = tracemalloc.get_traced_memory()[0] / 4
others = [f"memcached://10.2.0.{number}:11211" for number in range(int(sys.argv[1]))]
before = tracemalloc.get_traced_memory()[0]
kept.append(Client(others))
for number in range(20_000):
    kept[1].node_for(f"key:{number}")
gc.collect()
print(json.dumps([each, tracemalloc.get_traced_memory()[0] - before]))
"""


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure imports in fresh interpreters, and clients that are never used."""
    programs = {
        name: code
        for name, (peer, code) in PROGRAMS.items()
        if peer is None or bench.attendance.has(peer)
    }
    yield "import, CPU above a bare interpreter", _imports(bench, programs)
    more, first = memory_of_clients(8)
    yield (
        "memory of an idle client of 8 nodes",
        {
            "one more of equal nodes": Figure(more, unit="bytes"),
            "the first": Figure(first, unit="bytes"),
        },
    )
    urls = [f"memcached://10.0.{n // 250}.{n % 250}:11211" for n in range(1000)]
    yield (
        "making a client of 1,000 nodes",
        bench.interleave({"shardcache": lambda calls: [_make(urls) for _ in range(calls)]}),
    )


def memory_of_clients(nodes: int) -> tuple[float, float]:
    """Return the bytes of one more client of the same nodes, and those of a first one that was used."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(nodes)], check=True, stdout=subprocess.PIPE, text=True
    )
    more, first = json.loads(done.stdout)
    return more, first


def memory_of_connections(urls: list[str]) -> float:
    """Return the bytes of a connection: what a client of these nodes holds more once it is connected."""
    with Client(urls, timeout=10) as client:
        client.node_for("any")
        gc.collect()
        tracemalloc.start()
        try:
            client.ping()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return held / len(urls)


def _imports(bench: Bench, programs: dict[str, str]) -> dict[str, Figure]:
    best = dict.fromkeys([BARE, *programs], float("inf"))
    # What pip installs is compiled. A checkout may not be, and then each start would compile all of it.
    with TemporaryDirectory() as compiled:
        places = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for name in best:
            _cpu_of(programs.get(name, BARE), places)
        for _ in range(bench.plan.scaled(2 * FEWEST, 1)):
            for name in best:
                best[name] = min(best[name], _cpu_of(programs.get(name, BARE), places))
    bare = best.pop(BARE)
    return {name: Figure(max(0.0, seconds - bare)) for name, seconds in best.items()}


def _cpu_of(code: str, environment: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _make(urls: list[str]) -> None:
    Client(urls).close()
