"""Locks as users see them: a lock to share, and the lease of a holder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from shardcache.core.leases import MAX_TTL, LockPolicy, OnLost, WaitStrategy
from shardcache.core.lifetimes import positive_seconds, seconds_or_zero
from shardcache.core.placement.nodes import Node
from shardcache.errors import ConfigurationError, LockLost
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks import redlock
from shardcache.operations.locks.acquire import acquire, attempt, is_held
from shardcache.operations.locks.held import HeldLock
from shardcache.operations.locks.quorum import QuorumGrant
from shardcache.operations.port import run

DEFAULT_WAIT: Final = 10.0  # seconds

LeaseT = TypeVar("LeaseT", bound="LeaseBase")

# The leases of `with` blocks on locks themselves: a lock is shared, a block is not.
_entered: ContextVar[tuple[LeaseBase, ...]] = ContextVar("shardcache_locks", default=())


class LeaseBase:
    """What both leases answer without asking a node."""

    __slots__ = ("_held_lock",)

    def __init__(self, held_lock: HeldLock) -> None:
        self._held_lock = held_lock

    @property
    def valid(self) -> bool:
        """Return whether the lock is still held; `False` in a forked child, whose parent has it."""
        return self.remaining() > 0

    @property
    def lost(self) -> bool:
        """Return whether it was lost: it expired, could not be extended, or its service said so."""
        if not self.own:
            return False
        return bool(self._held_lock.lost) or not (self._held_lock.released or self.valid)

    @property
    def token(self) -> str:
        """Return hex digits that are kept for this lease only: 32 of them on cache nodes."""
        return self._held_lock.grant.token.hex()

    @property
    def fence(self) -> int | None:
        """Return a number that grows with every holder of the lock; `None` for locks on cache nodes."""
        return self._held_lock.grant.fence

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that were asked for the lock; none if another service keeps it."""
        grant = self._held_lock.grant
        members = grant.members if isinstance(grant, QuorumGrant) else ()
        return tuple(member.node for member in members)

    def remaining(self) -> float:
        """Return for how many more seconds it is held; 0 when it is not."""
        return self._held_lock.remaining()

    def check(self) -> None:
        """Raise `LockLost` unless the lock is still held."""
        if not self.valid:
            raise LockLost(f"lock {self._held_lock.name!r} is no longer held: {self._reason()}")

    @property
    def own(self) -> bool:
        """Return whether it belongs to this process, not to the process it was forked from."""
        return self._held_lock.own

    def _reason(self) -> str:
        if not self.own:
            return "it belongs to the process that this process was forked from"
        if self._held_lock.lost:
            return self._held_lock.lost
        return "it was released" if self._held_lock.released else "it expired"

    def _ttl(self, ttl: float | timedelta | None) -> float:
        if ttl is None:
            return self._held_lock.policy.ttl
        try:
            return positive_seconds(ttl, MAX_TTL)
        except ConfigurationError as error:
            raise ConfigurationError(f"lock: ttl {error.faults[0]}") from None

    def __repr__(self) -> str:
        state = f"{self.remaining():.1f} s" if self.valid else self._reason()
        return f"<{type(self).__name__} {self._held_lock.name!r}: {state}>"


class Lease(LeaseBase):
    """A lock that is held. Any thread may check, extend and release it.

    It is held for `remaining()` seconds by this machine's monotonic clock, which is less than the nodes
    keep it. The guarded work may go on after that, in a process that was paused meanwhile: see what
    Redlock does not promise in the docs.
    """

    __slots__ = ()

    def extend(self, ttl: float | timedelta | None = None) -> float:
        """Extend the lock to `ttl` seconds from now (by default its own ttl); return the seconds that remain.

        Raise `LockLost` when it is no longer held, or too few nodes agree: it is then lost. A service
        other than the cache nodes may not answer: then raise `LockUnavailable`, and it counts down. So it
        does when the service refuses the ttl, as it would when the lock is acquired: `ConfigurationError`.
        """
        self.check()
        run(lambda: self._held_lock.extend(self._ttl(ttl)))
        self.check()
        return self.remaining()

    def release(self) -> bool:
        """Release the lock; return whether it was still held. Idempotent; raises no `NodeError`."""
        return run(self._held_lock.release)


class AsyncLease(LeaseBase):
    """A lock that is held. Any task may check, extend and release it.

    It is held for `remaining()` seconds by this machine's monotonic clock, which is less than the nodes
    keep it. The guarded work may go on after that, in a process that was paused meanwhile: see what
    Redlock does not promise in the docs.
    """

    __slots__ = ()

    async def extend(self, ttl: float | timedelta | None = None) -> float:
        """Extend the lock to `ttl` seconds from now (by default its own ttl); return the seconds that remain.

        Raise `LockLost` when it is no longer held, or too few nodes agree: it is then lost. A service
        other than the cache nodes may not answer: then raise `LockUnavailable`, and it counts down. So it
        does when the service refuses the ttl, as it would when the lock is acquired: `ConfigurationError`.
        """
        self.check()
        await self._held_lock.extend(self._ttl(ttl))
        self.check()
        return self.remaining()

    async def release(self) -> bool:
        """Release the lock; return whether it was still held. Idempotent; raises no `NodeError`."""
        hold = self._held_lock
        return await hold.cluster.io.shield(hold.release)


class LockBase(Generic[LeaseT]):
    """What both locks share: a name and a policy.

    `cluster` returns the client's nodes at the start of a call.
    """

    __slots__ = ("_cluster", "_entered", "_on_lost", "name", "policy")

    def __init__(
        self, cluster: Callable[[], Cluster], name: Key, policy: LockPolicy, on_lost: OnLost
    ) -> None:
        if on_lost not in ("raise", "ignore"):
            raise ConfigurationError(f"lock: on_lost must be 'raise' or 'ignore', not {on_lost!r}")
        cluster().hashed(name)  # raises for an invalid key
        self._cluster = cluster
        self._on_lost = on_lost
        self._entered: list[LeaseT] = []  # by a `with` on the lock itself that has not ended
        self.name = name
        self.policy = policy

    @property
    def nodes(self) -> Sequence[Node]:
        """Return the nodes on which it is taken: up to five, in the name's order of preference.

        There are none if another service keeps it.
        """
        return redlock.lock_nodes(self._cluster(), self.name)

    def _enter(self, lease: LeaseT) -> LeaseT:
        self._entered.append(lease)
        # Without leases whose blocks ended in other threads: this thread does not see that.
        unreleased = (each for each in _entered.get() if not each._held_lock.released)  # noqa: SLF001 - as ours
        _entered.set((*unreleased, lease))
        return lease

    def _leave(self) -> LeaseT:
        """Return the lease of the innermost `with` on this lock.

        A block may end in another thread than it began, as with an `ExitStack`: then return the lease
        that was taken last.
        """
        of_this_thread = [lease for lease in _entered.get() if lease in self._entered]
        lease: LeaseT = of_this_thread[-1] if of_this_thread else self._entered[-1]
        self._forget(lease)
        return lease

    def _forget(self, lease: LeaseT) -> None:
        """Remove a lease whose `with` block has ended."""
        if lease in self._entered:
            self._entered.remove(lease)
        _entered.set(tuple(each for each in _entered.get() if each is not lease))

    def _check_held(self, lease: LeaseT, *, held: bool) -> None:
        """Raise `LockLost` after a block that lost the lock, with `on_lost="raise"`."""
        if not held and lease.own and self._on_lost == "raise":
            raise LockLost(f"lock {self.name!r} was lost before its block ended: {lease!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, ttl {self.policy.ttl:g} s>"


class Lock(LockBase[Lease]):
    """A lock on a majority of the client's nodes, or in the service of `locks`. Not reentrant.

    It has no state, so share it freely: each holder has a `Lease`.

    >>> from shardcache import Client
    >>> client = Client("memory://a,b,c")
    >>> with client.lock("report", ttl=10) as lease:
    ...     lease.valid
    True
    """

    __slots__ = ()

    def acquire(self, wait: float | timedelta | None = DEFAULT_WAIT) -> Lease:
        """Acquire the lock, trying for `wait` seconds; `None` tries without end.

        Raise `LockTimeout` when another holder keeps it, `LockUnavailable` when too few of its nodes can
        be reached for a majority, or the service of `locks` cannot.
        """
        seconds = wait_seconds(wait)
        [lease] = self._take(lambda: acquire(self._cluster(), self.name, self.policy, seconds))
        return lease

    def try_acquire(self) -> Lease | None:
        """Acquire the lock if it is free, else return `None`; raise `LockUnavailable` as `acquire` does."""
        leases = self._take(lambda: attempt(self._cluster(), self.name, self.policy))
        return leases[0] if leases else None

    def held(self) -> bool:
        """Return whether it is kept now for any holder, who may release it at once.

        Changes nothing, and takes one round trip. Raise `LockUnavailable` when the nodes that cannot
        be reached could change the answer.
        """
        return run(lambda: is_held(self._cluster(), self.name))

    @contextmanager
    def hold(self, wait: float | timedelta | None = DEFAULT_WAIT) -> Iterator[Lease]:
        """Hold the lock for a block: `with lock.hold(wait=1) as lease: …`; raise as `acquire` does.

        With `on_lost="raise"`, raise `LockLost` when the block ends without an error but the lock was
        lost meanwhile.
        """
        lease = self.acquire(wait)
        try:
            yield lease
        except BaseException:
            lease.release()
            raise
        self._check_held(lease, held=lease.release())

    def __enter__(self) -> Lease:
        lease = self.acquire()
        try:
            return self._enter(lease)
        except BaseException:
            self._forget(lease)
            lease.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._leave()
        held = lease.release()
        if error is None:
            self._check_held(lease, held=held)

    def _take(self, take: Callable[[], Coroutine[Any, Any, HeldLock | None]]) -> list[Lease]:
        """Return the lease in a list, which is empty if the lock was not taken.

        A signal that raises before the caller has the lease leaves no lock behind: it is released.
        """
        holds: list[HeldLock] = []

        async def keep() -> None:
            hold = await take()
            if hold is not None:
                holds.append(hold)

        try:
            run(keep)
            return [Lease(hold) for hold in holds]
        except BaseException:
            for hold in holds:
                run(hold.release)
            raise


class AsyncLock(LockBase[AsyncLease]):
    """A lock on a majority of the client's nodes, or in the service of `locks`. Not reentrant.

    It has no state, so share it freely: each holder has an `AsyncLease`.

    >>> import asyncio
    >>> from shardcache import AsyncClient
    >>> async def main() -> bool:
    ...     async with AsyncClient("memory://a,b,c") as client:
    ...         async with client.lock("report", ttl=10) as lease:
    ...             return lease.valid
    >>> asyncio.run(main())
    True
    """

    __slots__ = ()

    async def acquire(self, wait: float | timedelta | None = DEFAULT_WAIT) -> AsyncLease:
        """Acquire the lock, trying for `wait` seconds; `None` tries without end.

        Raise `LockTimeout` when another holder keeps it, `LockUnavailable` when too few of its nodes can
        be reached for a majority, or the service of `locks` cannot.
        """
        seconds = wait_seconds(wait)
        return AsyncLease(await acquire(self._cluster(), self.name, self.policy, seconds))

    async def try_acquire(self) -> AsyncLease | None:
        """Acquire the lock if it is free, else return `None`; raise `LockUnavailable` as `acquire` does."""
        hold = await attempt(self._cluster(), self.name, self.policy)
        return None if hold is None else AsyncLease(hold)

    async def held(self) -> bool:
        """Return whether it is kept now for any holder, who may release it at once.

        Changes nothing, and takes one round trip. Raise `LockUnavailable` when the nodes that cannot
        be reached could change the answer.
        """
        return await is_held(self._cluster(), self.name)

    @asynccontextmanager
    async def hold(
        self, wait: float | timedelta | None = DEFAULT_WAIT
    ) -> AsyncIterator[AsyncLease]:
        """Hold the lock for a block: `async with lock.hold(wait=1) as lease: …`; raise as `acquire` does.

        With `on_lost="raise"`, raise `LockLost` when the block ends without an error but the lock was
        lost meanwhile.
        """
        lease = await self.acquire(wait)
        try:
            yield lease
        except BaseException:
            await lease.release()
            raise
        self._check_held(lease, held=await lease.release())

    async def __aenter__(self) -> AsyncLease:
        return self._enter(await self.acquire())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._leave()
        held = await lease.release()
        if error is None:
            self._check_held(lease, held=held)


def lock_policy(
    ttl: float | timedelta,
    max_hold: float | timedelta,
    backoff: WaitStrategy | None,
    *,
    renew: bool,
) -> LockPolicy:
    """Return the policy of a lock, with durations in seconds."""
    return LockPolicy(ttl=_seconds(ttl), max_hold=_seconds(max_hold), backoff=backoff, renew=renew)


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def wait_seconds(wait: float | timedelta | None) -> float | None:
    """Return the wait in seconds; zero is a single attempt, `None` has no end."""
    if wait is None:
        return None
    try:
        return seconds_or_zero(wait, MAX_TTL)
    except ConfigurationError as error:
        raise ConfigurationError(f"lock: wait {error.faults[0]}") from None
