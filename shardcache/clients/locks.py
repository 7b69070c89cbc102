"""What a user holds of a lock: a description to share, and the lease of whoever has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from shardcache.core.leases import MAX_TTL, LockPolicy, OnLost, WaitStrategy
from shardcache.core.placement.nodes import Node
from shardcache.core.timeouts import positive_seconds, seconds_or_zero
from shardcache.errors import ConfigurationError, LockLost
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.routing import Key
from shardcache.operations.locks import redlock
from shardcache.operations.locks.held import HeldLock
from shardcache.operations.port import run

DEFAULT_WAIT: Final = 10.0  # seconds

LeaseT = TypeVar("LeaseT", bound="LeaseBase")

# Which lease a `with` on a lock itself has taken: the lock is shared, the block is not.
_entered: ContextVar[tuple[LeaseBase, ...]] = ContextVar("shardcache_locks", default=())


class LeaseBase:
    """What both leases tell from memory."""

    __slots__ = ("_hold",)

    def __init__(self, hold: HeldLock) -> None:
        self._hold = hold

    @property
    def valid(self) -> bool:
        """Return whether the lock still holds; `False` in a forked child, whose parent has it."""
        return self.remaining() > 0

    @property
    def lost(self) -> bool:
        """Return whether it was lost: its time ran out, or it could not be prolonged."""
        if not self.own:
            return False
        return bool(self._hold.lost) or not (self._hold.released or self.valid)

    @property
    def token(self) -> str:
        """Return the 32 hex digits that the nodes keep for this lease and for no other."""
        return self._hold.payload[1].hex()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes on which the lock was asked for."""
        return tuple(member.node for member in self._hold.members)

    def remaining(self) -> float:
        """Return for how many seconds it still holds; 0 when it does not."""
        return self._hold.remaining()

    def check(self) -> None:
        """Raise `LockLost` unless the lock still holds."""
        if not self.valid:
            raise LockLost(f"lock {self._hold.name!r} is not ours any more: {self._why()}")

    @property
    def own(self) -> bool:
        """Return whether it belongs to this process, and not to the one it was forked from."""
        return self._hold.own

    def _why(self) -> str:
        if not self.own:
            return "it belongs to the process that this one was forked from"
        if self._hold.lost:
            return self._hold.lost
        return "it was released" if self._hold.released else "its time ran out"

    def _ttl(self, ttl: float | timedelta | None) -> float:
        if ttl is None:
            return self._hold.policy.ttl
        try:
            return positive_seconds(ttl, MAX_TTL)
        except ConfigurationError as error:
            raise ConfigurationError(f"lock: ttl {error.faults[0]}") from None

    def __repr__(self) -> str:
        state = f"{self.remaining():.1f} s" if self.valid else self._why()
        return f"<{type(self).__name__} {self._hold.name!r}: {state}>"


class Lease(LeaseBase):
    """A lock that was taken. Any thread may check, extend and release it.

    It holds for `remaining()` seconds by this machine's monotonic clock, less than the nodes keep
    it. What it guards may still go on after that, in a process that was stopped meanwhile: see
    what Redlock does not promise in the docs.
    """

    __slots__ = ()

    def extend(self, ttl: float | timedelta | None = None) -> float:
        """Make it hold for `ttl` seconds from now (its own ttl if left out); return for how long.

        Raise `LockLost` when it does not hold any more, or too few nodes agree: it is then lost.
        """
        self.check()
        run(lambda: self._hold.extend(self._ttl(ttl)))
        self.check()
        return self.remaining()

    def release(self) -> bool:
        """Release the lock; return whether it still held. Idempotent, and raises no node's error."""
        return run(self._hold.release)


class AsyncLease(LeaseBase):
    """A lock that was taken. Any task may check, extend and release it.

    It holds for `remaining()` seconds by this machine's monotonic clock, less than the nodes keep
    it. What it guards may still go on after that, in a process that was stopped meanwhile: see
    what Redlock does not promise in the docs.
    """

    __slots__ = ()

    async def extend(self, ttl: float | timedelta | None = None) -> float:
        """Make it hold for `ttl` seconds from now (its own ttl if left out); return for how long.

        Raise `LockLost` when it does not hold any more, or too few nodes agree: it is then lost.
        """
        self.check()
        await self._hold.extend(self._ttl(ttl))
        self.check()
        return self.remaining()

    async def release(self) -> bool:
        """Release the lock; return whether it still held. Idempotent, and raises no node's error."""
        hold = self._hold
        return await hold.cluster.io.shield(hold.release)


class LockBase(Generic[LeaseT]):
    """What both locks are: a name, and on what terms it is held.

    `cluster` gives the client's nodes as they are when a call begins.
    """

    __slots__ = ("_cluster", "_entered", "_on_lost", "name", "policy")

    def __init__(
        self, cluster: Callable[[], Cluster], name: Key, policy: LockPolicy, on_lost: OnLost
    ) -> None:
        if on_lost not in ("raise", "ignore"):
            raise ConfigurationError(f"lock: on_lost must be 'raise' or 'ignore', not {on_lost!r}")
        cluster().hashed(name)  # raises for what is no key
        self._cluster = cluster
        self._on_lost = on_lost
        self._entered: list[LeaseT] = []  # by a `with` on the lock itself, and not left yet
        self.name = name
        self.policy = policy

    @property
    def nodes(self) -> Sequence[Node]:
        """Return the nodes on which it is taken: up to five, in the name's order of preference."""
        return redlock.lock_nodes(self._cluster(), self.name)

    def _enter(self, lease: LeaseT) -> LeaseT:
        self._entered.append(lease)
        # Without those whose blocks were left elsewhere: this thread hears nothing of that.
        held = (each for each in _entered.get() if not each._hold.released)  # noqa: SLF001 - as ours
        _entered.set((*held, lease))
        return lease

    def _leave(self) -> LeaseT:
        """Return the lease that the innermost `with` on this lock has taken.

        A block may be left elsewhere than it was entered, as by an `ExitStack` in another thread:
        then it is the one that was taken last.
        """
        mine = [lease for lease in _entered.get() if lease in self._entered]
        lease: LeaseT = mine[-1] if mine else self._entered[-1]
        self._forget(lease)
        return lease

    def _forget(self, lease: LeaseT) -> None:
        """Take note that a `with` has no part in this lease any more."""
        if lease in self._entered:
            self._entered.remove(lease)
        _entered.set(tuple(each for each in _entered.get() if each is not lease))

    def _ended(self, lease: LeaseT, *, held: bool) -> None:
        """Raise `LockLost` behind a block that ran to its end without the lock, if asked to."""
        if not held and lease.own and self._on_lost == "raise":
            raise LockLost(f"lock {self.name!r} was lost before its block had ended: {lease!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, ttl {self.policy.ttl:g} s>"


class Lock(LockBase[Lease]):
    """A lock over a majority of the client's nodes: a description, to be shared freely.

    All that happens to it is in the `Lease` of whoever has taken it. Not reentrant.

    >>> from shardcache import Client
    >>> client = Client("memory://a,b,c")
    >>> with client.lock("report", ttl=10) as lease:
    ...     lease.valid
    True
    """

    __slots__ = ()

    def acquire(self, wait: float | timedelta | None = DEFAULT_WAIT) -> Lease:
        """Take it, trying for `wait` seconds; with `None` without end.

        Raise `LockTimeout` when another keeps it, `LockUnavailable` when too few of its nodes can
        be reached to make a majority.
        """
        seconds = wait_seconds(wait)
        [lease] = self._take(
            lambda: redlock.acquire(self._cluster(), self.name, self.policy, seconds)
        )
        return lease

    def try_acquire(self) -> Lease | None:
        """Take it if nobody has it, else return `None`; raise `LockUnavailable` as `acquire` does."""
        leases = self._take(lambda: redlock.attempt(self._cluster(), self.name, self.policy))
        return leases[0] if leases else None

    def held(self) -> bool:
        """Return whether a majority of its nodes keeps it for anybody now, who may release it at once.

        Changes nothing, and takes one round trip. Raise `LockUnavailable` when the nodes that cannot
        be reached could make the difference.
        """
        return run(lambda: redlock.held(self._cluster(), self.name))

    @contextmanager
    def hold(self, wait: float | timedelta | None = DEFAULT_WAIT) -> Iterator[Lease]:
        """Hold it for a block: `with lock.hold(wait=1) as lease: …`; raise as `acquire` does.

        When the block has ended without an error but the lock was lost meanwhile, raise `LockLost`
        (`on_lost="raise"`).
        """
        lease = self.acquire(wait)
        try:
            yield lease
        except BaseException:
            lease.release()
            raise
        self._ended(lease, held=lease.release())

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
            self._ended(lease, held=held)

    def _take(self, take: Callable[[], Coroutine[Any, Any, HeldLock | None]]) -> list[Lease]:
        """Return the lease, if the lock was taken.

        A signal that raises before the caller has it leaves no lock that nobody can release.
        """
        holds: list[HeldLock] = []

        async def taken() -> None:
            hold = await take()
            if hold is not None:
                holds.append(hold)

        try:
            run(taken)
            return [Lease(hold) for hold in holds]
        except BaseException:
            for hold in holds:
                run(hold.release)
            raise


class AsyncLock(LockBase[AsyncLease]):
    """A lock over a majority of the client's nodes: a description, to be shared freely.

    All that happens to it is in the `AsyncLease` of whoever has taken it. Not reentrant.

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
        """Take it, trying for `wait` seconds; with `None` without end.

        Raise `LockTimeout` when another keeps it, `LockUnavailable` when too few of its nodes can
        be reached to make a majority.
        """
        seconds = wait_seconds(wait)
        return AsyncLease(await redlock.acquire(self._cluster(), self.name, self.policy, seconds))

    async def try_acquire(self) -> AsyncLease | None:
        """Take it if nobody has it, else return `None`; raise `LockUnavailable` as `acquire` does."""
        hold = await redlock.attempt(self._cluster(), self.name, self.policy)
        return None if hold is None else AsyncLease(hold)

    async def held(self) -> bool:
        """Return whether a majority of its nodes keeps it for anybody now, who may release it at once.

        Changes nothing, and takes one round trip. Raise `LockUnavailable` when the nodes that cannot
        be reached could make the difference.
        """
        return await redlock.held(self._cluster(), self.name)

    @asynccontextmanager
    async def hold(
        self, wait: float | timedelta | None = DEFAULT_WAIT
    ) -> AsyncIterator[AsyncLease]:
        """Hold it for a block: `async with lock.hold(wait=1) as lease: …`; raise as `acquire` does.

        When the block has ended without an error but the lock was lost meanwhile, raise `LockLost`
        (`on_lost="raise"`).
        """
        lease = await self.acquire(wait)
        try:
            yield lease
        except BaseException:
            await lease.release()
            raise
        self._ended(lease, held=await lease.release())

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
            self._ended(lease, held=held)


def lock_policy(
    ttl: float | timedelta,
    max_hold: float | timedelta,
    backoff: WaitStrategy | None,
    *,
    renew: bool,
) -> LockPolicy:
    """Return the terms of a lock, lengths of time in seconds."""
    return LockPolicy(ttl=_plain(ttl), max_hold=_plain(max_hold), backoff=backoff, renew=renew)


def _plain(length: float | timedelta) -> float:
    return length.total_seconds() if isinstance(length, timedelta) else length


def wait_seconds(wait: float | timedelta | None) -> float | None:
    """Return how long to wait, in seconds; zero is a single try, `None` has no end."""
    if wait is None:
        return None
    try:
        return seconds_or_zero(wait, MAX_TTL)
    except ConfigurationError as error:
        raise ConfigurationError(f"lock: wait {error.faults[0]}") from None
