"""One event for each operation of a client, for observers that listen for it.

An operation looks at `cluster.observes_operations`, and returns its own coroutine if that is false:
without such an observer it pays for one plain call. It passes no `*args` on the way, because a signal
could raise after a call through C, before the coroutine's first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shardcache.core.events import OperationFinished
from shardcache.errors import PartialFailureError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.port import Work

T = TypeVar("T")


async def report(
    cluster: Cluster, name: str, keys: int, work: Work[T], hits: Callable[[T], int] = lambda _: 0
) -> T:
    """Run an operation, and notify the observers of its end; `hits` counts in its result."""
    began = cluster.io.now()
    found = 0
    failure: BaseException | None = None
    try:
        result = await work()
        found = int(hits(result))
    except BaseException as error:
        failure = error
        if isinstance(error, PartialFailureError):
            found = len(error.found)
        raise
    finally:
        seconds = cluster.io.now() - began
        cluster.observers.notify(OperationFinished(name, keys, found, seconds, failure))
        failure = None  # it would keep this frame alive, and the frame it
    return result
