"""What a lock provider raises although its protocol does not let it.

Whatever that is, it is recorded. A call that has a result to give raises `LockUnavailable`. The end of a lock,
which may come after an exception of the caller's own, raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shardcache.core.events import LockProviderFailed
from shardcache.core.lock_providers import Grant, LockProvider
from shardcache.errors import LockUnavailable, ShardCacheError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.port import Work

T = TypeVar("T")


async def ask(cluster: Cluster, name: bytes, call: str, work: Work[T]) -> T:
    """Return what the provider answers about the lock `name`; raise `LockUnavailable` if it fails."""
    try:
        return await work()
    except ShardCacheError:
        raise
    except Exception as error:
        raise failed(cluster, name, call, error) from error


def failed(cluster: Cluster, name: bytes, call: str, error: Exception) -> LockUnavailable:
    """Record what the provider raised; return the error for the caller."""
    note(cluster, name, call, error)
    what = f"lock {name.decode('utf-8', 'backslashreplace')!r}" if name else "locks"
    return LockUnavailable(f"{what}: the lock provider failed: {error!r}")


def note(cluster: Cluster, name: bytes, call: str, error: Exception) -> None:
    """Record what the provider raised in `call`."""
    cluster.note_lock_failure(LockProviderFailed(name, call, error))


def end(cluster: Cluster, name: bytes, grant: Grant, *, lost: bool) -> None:
    """End a grant."""
    try:
        grant.end(lost=lost)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        note(cluster, name, "end", error)


async def release(cluster: Cluster, name: bytes, grant: Grant) -> bool:
    """Release a grant; return whether the service still had it.

    If its provider fails, the service had it until now, as far as the provider has told.
    """
    try:
        return await grant.release()
    except Exception as error:  # noqa: BLE001 - as above
        note(cluster, name, "release", error)
        return True


async def close(provider: LockProvider, note_failure: Callable[[LockProviderFailed], None]) -> None:
    """Close a provider."""
    try:
        await provider.close()
    except Exception as error:  # noqa: BLE001 - as above
        note_failure(LockProviderFailed(b"", "close", error))
