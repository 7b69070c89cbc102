"""A lock that this client holds, from any provider: keep it, extend it, release it.

What the provider raises although its protocol does not let it is recorded. A call that has a result to give
raises `LockUnavailable`. The end of a lock, which may come after an exception of the caller's own, raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from shardcache.core.events import LeaseLost, LockProviderFailed
from shardcache.core.leases import LockPolicy
from shardcache.core.lock_providers import Grant, LockProvider
from shardcache.errors import LockUnavailable, ShardCacheError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.port import Repetition, Work

T = TypeVar("T")

EXPIRED: Final = "it expired"


class HeldLock:
    """A lock that this client holds: the grant of its provider, and how that ends.

    Times are monotonic seconds. It is valid while the grant is, unless it is `released` or `lost`,
    which says why.
    """

    __slots__ = (
        "_loss_event",
        "_process",
        "_renewal",
        "cluster",
        "grant",
        "lost",
        "name",
        "policy",
        "released",
        "since",
    )

    def __init__(
        self, cluster: Cluster, name: bytes, grant: Grant, policy: LockPolicy, since: float
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.grant = grant
        self.policy = policy
        self.since = since
        self.lost = ""
        self.released = False
        self._loss_event = [LeaseLost]  # the event of its loss, until observers are notified
        self._process = cluster.io.process()
        self._renewal: Repetition | None = None

    def remaining(self) -> float:
        """Return the seconds for which the lock is still valid; 0 if it is not, as in a forked child."""
        if self.lost or self.released or not self.own:
            return 0.0
        try:
            return self.grant.remaining()
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            _note(self.cluster, self.name, "remaining", error)
            self._lose_unless_released(f"its provider failed: {error!r}")
            return 0.0

    @property
    def own(self) -> bool:
        """Whether it belongs to this process, and not to the process that this one was forked from."""
        return self._process == self.cluster.io.process()

    def begin(self) -> None:
        """Listen for its loss, and extend it in the background if its policy says so."""
        try:
            self.grant.watch(self._lose_unless_released)
        except Exception as error:
            raise _failed(self.cluster, self.name, "watch", error) from error
        io, policy = self.cluster.io, self.policy
        if policy.renew:
            self._renewal = io.repeat(policy.ttl / 3, self._extend_while_held, "lock keeper")

    async def _extend_while_held(self) -> bool:
        try:
            return await self._extend_once()
        except LockUnavailable:  # it counts down: the next turn extends it, or finds it expired
            return True
        except ShardCacheError as error:  # such as a node that has joined a Redis Cluster
            self._lose_unless_released(f"it could not be extended: {error}")
            return False

    async def _extend_once(self) -> bool:
        if self.cluster.io.now() - self.since + self.policy.ttl / 3 > self.policy.max_hold:
            return False
        if self.remaining() > self.policy.ttl:
            return True  # the caller has extended it for longer
        return await self.extend(self.policy.ttl)

    async def extend(self, ttl: float) -> bool:
        """Extend the lock to `ttl` seconds from now; return whether it is valid. A lost one stays lost.

        Raise `LockUnavailable` if its provider cannot be reached: it counts down then.
        """
        if self.released or not self.own:
            return False
        if not self.remaining():
            self._lose(EXPIRED)
            return False
        deadline = self.cluster.deadline()
        agreed = await ask_provider(
            self.cluster, self.name, "extend", lambda: self.grant.extend(ttl, deadline)
        )
        if self.released:  # meanwhile, which is not a loss
            return False
        if not agreed or self.lost:
            self._lose("it could not be extended")
            return False
        return True

    async def release(self) -> bool:
        """Release the lock; return whether it was still held. Only the first call counts."""
        if self.released or not self.own:
            return False
        if not self.remaining():
            self._lose(EXPIRED)
        self.released = True
        _end(self.cluster, self.name, self.grant, lost=False)
        if self._renewal is not None:
            try:
                await self._renewal.stop()
            except BaseException:
                self.cluster.io.clean_up(self, self._release_later)
                raise
        if not await self._release_grant():
            self._lose("it was gone when it was released")
        return not self.lost

    async def _release_grant(self) -> bool:
        """Have the service release it; return whether it still had it."""
        return await release_grant(self.cluster, self.name, self.grant)

    async def _release_later(self) -> None:
        await self._release_grant()

    def _lose_unless_released(self, why: str) -> None:
        if not self.released:
            self._lose(why)

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        try:
            self._loss_event.pop()  # atomic: one thread notifies
        except IndexError:
            return
        _end(self.cluster, self.name, self.grant, lost=True)
        observers = self.cluster.observers
        if observers:
            observers.notify(LeaseLost(self.name, self.cluster.io.now() - self.since))


# What a provider raises.


async def ask_provider(cluster: Cluster, name: bytes, call: str, work: Work[T]) -> T:
    """Return what the provider answers about the lock `name`; raise `LockUnavailable` if it fails."""
    try:
        return await work()
    except ShardCacheError:
        raise
    except Exception as error:
        raise _failed(cluster, name, call, error) from error


def _failed(cluster: Cluster, name: bytes, call: str, error: Exception) -> LockUnavailable:
    """Record what the provider raised; return the error for the caller."""
    _note(cluster, name, call, error)
    what = f"lock {name.decode('utf-8', 'backslashreplace')!r}" if name else "locks"
    return LockUnavailable(f"{what}: the lock provider failed: {error!r}")


def _note(cluster: Cluster, name: bytes, call: str, error: Exception) -> None:
    """Record what the provider raised in `call`."""
    cluster.note_lock_failure(LockProviderFailed(name, call, error))


def _end(cluster: Cluster, name: bytes, grant: Grant, *, lost: bool) -> None:
    """End a grant."""
    try:
        grant.end(lost=lost)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        _note(cluster, name, "end", error)


async def release_grant(cluster: Cluster, name: bytes, grant: Grant) -> bool:
    """Release a grant; return whether the service still had it.

    If its provider fails, the service had it until now, as far as the provider has told.
    """
    try:
        return await grant.release()
    except Exception as error:  # noqa: BLE001 - as above
        _note(cluster, name, "release", error)
        return True


async def close_provider(
    provider: LockProvider, note_failure: Callable[[LockProviderFailed], None]
) -> None:
    """Close a provider."""
    try:
        await provider.close()
    except Exception as error:  # noqa: BLE001 - as above
        note_failure(LockProviderFailed(b"", "close", error))
