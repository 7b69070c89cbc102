"""The calls of a lock, through a client of either kind: what the contract of lock providers is made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from shardcache.clients.base import cluster_of
from shardcache.operations.port import run
from shardcache.testing.driving import DrivenClient


def take(client: Any, name: str, ttl: float, *, wait: float = 5.0, renew: bool = False) -> Any:
    """Return a lease, and wait for it if need be."""
    return _do(client, lambda: client.lock(name, ttl=ttl, renew=renew).acquire(wait))


def try_take(client: Any, name: str, ttl: float) -> Any:
    """Return a lease, or `None` if another client has the lock."""
    return _do(client, lambda: client.lock(name, ttl=ttl).try_acquire())


def held(client: Any, name: str) -> Any:
    """Return whether any client holds a lock."""
    return _do(client, lambda: client.lock(name).held())


def extend(client: Any, lease: Any, ttl: float) -> Any:
    """Extend a lease; return the seconds that remain."""
    return _do(client, lambda: lease.extend(ttl))


def release(client: Any, lease: Any) -> Any:
    """Release a lease; return whether it was still held."""
    return _do(client, lease.release)


def operate(client: Any, operation: Callable[..., Any], *arguments: Any) -> Any:
    """Run an operation on the client's cluster."""
    if isinstance(client, DrivenClient):
        work = operation(cluster_of(client.twin), *arguments)
        return client.loop.run_until_complete(work)
    return run(lambda: operation(cluster_of(client), *arguments))


def pause(client: Any, seconds: float) -> None:
    """Wait, and run the event loop of the client meanwhile, if it has one."""
    if isinstance(client, DrivenClient):
        client.loop.run_until_complete(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def check_fences(fences: Sequence[int | None]) -> None:
    """Assert that the fences of consecutive holders grow, or that there are none."""
    if any(fence is not None for fence in fences):
        numbers = [fence for fence in fences if fence is not None]
        assert len(numbers) == len(fences)
        assert numbers == sorted(set(numbers))


def _do(client: Any, call: Callable[[], Any]) -> Any:
    result = call()
    return client.loop.run_until_complete(result) if isinstance(client, DrivenClient) else result
