"""A generator that waits for descriptors, as a dial does, run on an event loop."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Generator
from typing import TypeVar

from shardcache.backends.base import Wait
from shardcache.backends.transport.dial import Expired

T = TypeVar("T")


async def run_steps(steps: Generator[Wait, None, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a generator that waits for descriptors on an event loop."""
    wait: Wait | None = None
    try:
        wait = next(steps)
        while True:
            ready = await _wait_ready(wait, loop)
            wait = next(steps) if ready else steps.throw(Expired())
    except StopIteration as done:
        result: T = done.value
        return result
    except BaseException:
        if wait is not None:
            unwatch(loop, wait.descriptor)  # an interrupt may have come before the first time
        raise
    finally:
        steps.close()


def unwatch(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    """Stop watching a descriptor for anything.

    Call it for a new descriptor too. An interrupt may have kept the watch of a closed one with the same
    number: the loop would take the new one for watched, and never wake for it.
    """
    loop.remove_reader(descriptor)
    loop.remove_writer(descriptor)


async def _wait_ready(wait: Wait, loop: asyncio.AbstractEventLoop) -> bool:
    """Wait for a descriptor; return whether it was ready in time."""
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    unwatch(loop, wait.descriptor)
    reading = wait.mask & select.POLLIN
    (loop.add_reader if reading else loop.add_writer)(wait.descriptor, wake)
    timeout = None if wait.until is None else max(0.0, wait.until - time.monotonic())
    try:
        async with asyncio.timeout(timeout):
            await ready
    except TimeoutError:
        return ready.done() and not ready.cancelled()  # it may be ready after a delay of our own
    finally:
        unwatch(loop, wait.descriptor)
    return True
