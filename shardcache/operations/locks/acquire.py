"""Acquire a lock from its provider: once, or again and again while another client holds it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shardcache.core.leases import LockPolicy
from shardcache.core.lock_providers import (
    Holder,
    LockProvider,
    LockScope,
    NamedLock,
    Refusal,
    TellsHolders,
)
from shardcache.errors import LockTimeout, UnsupportedError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks.backoff import Backoff
from shardcache.operations.locks.held import HeldLock, ask_provider, release_grant


async def acquire(cluster: Cluster, key: Key, policy: LockPolicy, wait: float | None) -> HeldLock:
    """Acquire the lock `key`; retry for `wait` seconds while another client holds it, or for ever.

    Raise `LockTimeout` if it is still held after that, `LockUnavailable` if its provider cannot decide.
    """
    io = cluster.io
    deadline = math.inf if wait is None else io.now() + wait
    backoff = Backoff(io, policy.backoff)
    while (lock := await attempt(cluster, key, policy)) is None:
        pause = backoff.pause()
        left = deadline - io.now()
        if left <= 0:
            raise LockTimeout(f"lock {key!r} is still held by another client after {wait:g} s")
        await io.sleep(min(pause, left))
    return lock


async def attempt(cluster: Cluster, key: Key, policy: LockPolicy) -> HeldLock | None:
    """Try once to acquire the lock `key`; return `None` if that fails.

    Raise `LockUnavailable` if its provider cannot decide.
    """
    lock = await attempt_or_refusal(cluster, key, policy)
    # Without a call, after which a signal could raise: no caller would have the lock then.
    return None if lock is Refusal.HELD or lock is Refusal.LATE else lock


async def attempt_or_refusal(
    cluster: Cluster, key: Key, policy: LockPolicy, scope: LockScope = LockScope.CALLER
) -> HeldLock | Refusal:
    """Try once to acquire the lock `key`, as `attempt`; return why it was not acquired."""
    cluster = cluster.locking
    lock = named(cluster, key, scope)
    since = cluster.io.now()
    deadline = since + cluster.timeout
    grant = await ask_provider(
        cluster,
        lock.name,
        "attempt",
        lambda: cluster.lock_provider.attempt(lock, policy.ttl, deadline),
    )
    # Without a call, as above.
    if grant is Refusal.HELD or grant is Refusal.LATE:
        return grant
    try:
        held = HeldLock(cluster, lock.name, grant, policy, since)
        held.begin()
    except BaseException:
        await cluster.io.shield(lambda: release_grant(cluster, lock.name, grant))
        raise
    return held


async def is_held(cluster: Cluster, key: Key) -> bool:
    """Return whether any client holds the lock `key` now; raise `LockUnavailable` as `attempt` does."""
    lock, deadline = named(cluster.locking, key), cluster.deadline()
    return await ask_provider(
        cluster, lock.name, "is_held", lambda: cluster.lock_provider.is_held(lock, deadline)
    )


async def find_holder(
    cluster: Cluster, key: Key, scope: LockScope = LockScope.CALLER
) -> Holder | None:
    """Return who holds the lock `key`, as far as its provider can tell."""
    lock, deadline = named(cluster.locking, key, scope), cluster.deadline()
    teller = _teller(cluster)
    return await ask_provider(cluster, lock.name, "holder", lambda: teller.holder(lock, deadline))


async def list_holders(cluster: Cluster) -> Sequence[Holder]:
    """Return the holders of all locks of the provider."""
    teller, deadline = _teller(cluster), cluster.deadline()
    return await ask_provider(cluster, b"", "holders", lambda: teller.holders(deadline))


async def break_lock(cluster: Cluster, key: Key, scope: LockScope = LockScope.CALLER) -> bool:
    """Take the lock `key` away from its holder; return whether there was one."""
    lock, deadline = named(cluster.locking, key, scope), cluster.deadline()
    teller = _teller(cluster)
    return await ask_provider(
        cluster, lock.name, "break_lock", lambda: teller.break_lock(lock, deadline)
    )


def named(locking: Cluster, key: Key, scope: LockScope = LockScope.CALLER) -> NamedLock:
    """Return the lock of a caller's key, on the cluster on which locks are taken."""
    name, _, hashed = locking.route(key)
    return NamedLock(name, scope, locking, hashed)


def _teller(cluster: Cluster) -> TellsHolders:
    provider: LockProvider = cluster.lock_provider
    if not isinstance(provider, TellsHolders):
        raise UnsupportedError("the lock provider cannot tell who holds a lock")
    return provider
