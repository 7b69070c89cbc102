"""The cores and the servers of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from shardcache.testing.servers import Server, start_memcached, start_redis

NODES: Final = 8

STARTS: Final[dict[str, Callable[[], Server]]] = {
    "memcached": lambda: start_memcached("-t", "1", "-m", "256", "-c", "16384", "-I", "8m"),
    "redis": start_redis,
}


ALL_CORES: Final = os.sched_getaffinity(0)  # before anything is pinned


@contextmanager
def run_servers(kind: str, count: int = NODES) -> Iterator[list[Server]]:
    """Run servers of a kind on the cores of this process; stop them at the end."""
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            servers.append(STARTS[kind]())
            stack.callback(servers[-1].stop)
        yield servers


def pin(cores: set[int] | None = None) -> None:
    """Keep every thread of this process, and what it starts, on one core, or on `cores`."""
    cores = cores or {min(ALL_CORES)}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def unpinned() -> Iterator[None]:
    """Use every core in this process, and in what it starts, until the block ends."""
    before = os.sched_getaffinity(0)
    pin(ALL_CORES)
    try:
        yield
    finally:
        pin(before)
