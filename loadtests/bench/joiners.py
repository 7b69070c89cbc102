"""Callers who wait for one recompute: what each costs, in CPU and in memory."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from typing import Any, Final

from bench.bench import Bench
from bench.machine import run_servers
from bench.rounds import FEWEST, Figure, Figures, settled_heap
from bench.workload import TTL, VALUE
from shardcache import AsyncClient

CROWDS: Final = (1_000, 20_000)
WAITING: Final = 1_000
COMPUTES: Final = 0.05  # seconds


def measure(bench: Bench) -> Iterator[tuple[str, Figures]]:
    """Measure crowds who ask for one missing key, over eight memcached nodes."""
    with run_servers("memcached") as servers, closing(asyncio.new_event_loop()) as loop:
        client = AsyncClient([server.url for server in servers], timeout=60)
        try:
            for crowd in CROWDS:
                size = bench.plan.scaled(crowd, crowd // 50)
                rounds = bench.plan.scaled(FEWEST if crowd == CROWDS[0] else 2, 1)
                cpu = [
                    loop.run_until_complete(cost_of_joining(client, size)) for _ in range(rounds)
                ]
                yield (
                    f"a caller who joins a recompute, {crowd:,} tasks",
                    {"shardcache": Figure(min(cpu))},
                )
            yield (
                "memory of a caller who waits",
                {
                    "of a cached function": Figure(
                        loop.run_until_complete(memory_of_waiting(client)), unit="bytes"
                    ),
                    "a task": Figure(loop.run_until_complete(memory_of_tasks()), unit="bytes"),
                },
            )
        finally:
            loop.run_until_complete(client.aclose())


async def cost_of_joining(client: AsyncClient, crowd: int) -> float:
    """Return the CPU seconds that each of a crowd costs."""

    @client.cached(ttl=TTL, lock=True, wait=60, namespace=f"crowd{time.monotonic_ns()}")
    async def value(number: int) -> bytes:
        await asyncio.sleep(COMPUTES)
        return VALUE + b"%d" % number

    await value(0)  # what the first call of a function looks up is known
    with settled_heap():
        began = time.process_time()
        await asyncio.gather(*(value(1) for _ in range(crowd)))
        return (time.process_time() - began) / crowd


async def memory_of_waiting(client: AsyncClient, crowd: int = WAITING) -> float:
    """Return the bytes that each caller holds who waits for a recompute."""
    begin = asyncio.Event()

    @client.cached(ttl=TTL, lock=True, wait=60, namespace=f"memory{time.monotonic_ns()}")
    async def value(number: int) -> bytes:
        await begin.wait()
        return VALUE + b"%d" % number

    leader = asyncio.ensure_future(value(1))
    await asyncio.sleep(0.1)
    followers = [asyncio.ensure_future(value(1)) for _ in range(50)]  # what is made once is there
    await asyncio.sleep(0.1)
    tasks, held = await _start(crowd, lambda: value(1))
    begin.set()
    await asyncio.gather(leader, *followers, *tasks)
    return held


async def memory_of_tasks(crowd: int = WAITING) -> float:
    """Return the bytes of a task that waits for an event."""
    begin = asyncio.Event()
    tasks, held = await _start(crowd, begin.wait)
    begin.set()
    await asyncio.gather(*tasks)
    return held


async def _start(
    crowd: int, call: Callable[[], Coroutine[Any, Any, Any]]
) -> tuple[list[asyncio.Future[Any]], float]:
    """Start tasks that wait; return them, and the bytes that each holds."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tasks = [asyncio.ensure_future(call()) for _ in range(crowd)]
        after = await _await_rest()
    finally:
        tracemalloc.stop()
    return tasks, (after - before) / crowd


async def _await_rest() -> int:
    """Return the traced memory once it has stayed the same for a moment: all tasks wait."""
    last = -1
    while True:
        await asyncio.sleep(0.2)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        if abs(held - last) <= held // 1000:
            return held
        last = held
