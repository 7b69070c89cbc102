"""The backend under Django's own tests: over the servers of this run, through the calls of this run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import async_to_sync
from shardcache_django import ShardCache

URLS = os.environ["SUITE_URLS"].split()
AWAITED = (
    *("add", "get", "set", "touch", "delete", "clear", "close", "incr", "decr", "has_key"),
    *("get_many", "set_many", "delete_many", "get_or_set", "incr_version", "decr_version"),
)


class Sync(ShardCache):
    """A cache for tests that were written for Django's caches in memory: a namespace for each of those."""

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        options = {"timeout": 10, "namespace": name, **params.get("OPTIONS", {})}
        super().__init__(URLS, {**params, "OPTIONS": options})


class Async(Sync):
    """The same cache, whose sync methods call the `a…` methods."""


def _awaited(name: str) -> Callable[..., Any]:
    def call(self: Async, *args: Any, **kwargs: Any) -> Any:
        return _run(getattr(self, f"a{name}")(*args, **kwargs))

    return call


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a call on a new event loop; for a test that has a loop already, from another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return async_to_sync(_await)(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


for _name in AWAITED:
    setattr(Async, _name, _awaited(_name))

Tested = Async if os.environ["SUITE_CALLS"] == "async" else Sync
