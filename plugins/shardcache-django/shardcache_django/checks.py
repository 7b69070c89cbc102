"""The system check of `manage.py check --deploy`: each node can do everything that a client needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.cache import caches
from django.core.checks import Error, Tags, register

from shardcache import CheckFailedError
from shardcache_django.backend import ShardCache


@register(Tags.caches, deploy=True)  # type: ignore[untyped-decorator]  # Django has no types
def check_nodes(**_: Any) -> list[Error]:  # whatever Django passes
    """Return an error for each fault of a node, by the alias of its cache."""
    return [error for alias in caches for error in _faults(alias)]


def _faults(alias: str) -> Iterator[Error]:
    backend = caches[alias]
    if not isinstance(backend, ShardCache):
        return
    try:
        backend.client.check()
    except CheckFailedError as error:
        for name, faults in error.faults.items():
            for fault in faults:
                yield Error(f"CACHES[{alias!r}]: {name}: {fault}", id="shardcache.E001")
