"""What a call on a hostile node costs: its time, the delay of an event loop, and memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import NamedTuple

from shardcache import AsyncClient, Client

PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 0.02  # seconds between two looks


class Cost(NamedTuple):
    """Seconds of the longest call and of the close, the longest delay of the loop, and bytes at the peak."""

    call: float
    close: float
    lag: float
    memory: int
    outcomes: list


@contextlib.contextmanager
def sampled():
    """Sample this process's memory; the list that is given ends with the growth at its peak."""
    growth, over = [0], threading.Event()
    before = resident()

    def look():
        while not over.wait(EVERY):
            growth[0] = max(growth[0], resident() - before)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield growth
    finally:
        over.set()
        thread.join()


def resident():
    """Return how many bytes of memory this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * PAGE


def cost_of(mode, url, calls, **settings):
    """Make a client of a node, do calls on it one after the other, and close it."""
    run = _blocking if mode == "blocking" else _asyncio
    return run(url, calls, {"on_error": "raise", **settings})


def _blocking(url, calls, settings):
    outcomes, longest = [], 0.0
    with sampled() as growth:
        client = Client(url, **settings)
        for call in calls:
            began = time.monotonic()
            try:
                outcomes.append(call(client))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                outcomes.append(error)
            longest = max(longest, time.monotonic() - began)
        began = time.monotonic()
        client.close()
        closed = time.monotonic() - began
    return Cost(longest, closed, 0.0, growth[0], outcomes)


def _asyncio(url, calls, settings):
    return asyncio.run(_measured(url, calls, settings))


async def _measured(url, calls, settings):
    outcomes, longest, lag = [], 0.0, [0.0]

    async def tick():
        while True:
            began = time.monotonic()
            await asyncio.sleep(EVERY)
            lag[0] = max(lag[0], time.monotonic() - began - EVERY)

    ticker = asyncio.ensure_future(tick())
    with sampled() as growth:
        client = AsyncClient(url, **settings)
        for call in calls:
            began = time.monotonic()
            try:
                outcomes.append(await call(client))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                outcomes.append(error)
            longest = max(longest, time.monotonic() - began)
        began = time.monotonic()
        await client.aclose()
        closed = time.monotonic() - began
        await asyncio.sleep(EVERY)
        ticker.cancel()
    return Cost(longest, closed, lag[0], growth[0], outcomes)
