"""What the author of a lock provider implements: who holds a lock, and until when.

1. A `LockProviderFactory` for a URL scheme. A plugin registers it by the hook
   `shardcache_register_lock_providers`.
2. A `LockProvider` for `Client`, and one for `AsyncClient`. Its methods are coroutines in both. Those
   of a blocking client block their thread and never suspend, as its port's do.
3. A `Grant` for each lock that is held.
4. If the service can tell who holds a lock: `TellsHolders`.

A provider makes single attempts. Waiting, back-off, renewal, counters, events and the lease that a
caller sees are the client's. The contract that every provider passes is `shardcache.testing.locks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol, runtime_checkable


class LockScope(Enum):
    """What a lock is for. Locks of one name and two scopes are two locks."""

    CALLER = "lock"  # of `client.lock`
    RECOMPUTE = "recompute"  # of a cached value: its name is the value's key


class NamedLock(NamedTuple):
    """The lock that a provider is asked for.

    `name` is any bytes but none at all, blanks and slashes included, and begins with the namespace
    of the client. `cluster` are the client's nodes, and `hashed` places the name among them: only
    the built-in provider needs these.
    """

    name: bytes
    scope: LockScope
    cluster: Any  # core does not know the type
    hashed: bytes

    @property
    def shown(self) -> str:
        """The name as errors quote it."""
        return repr(self.name.decode("utf-8", "backslashreplace"))


class Refusal(Enum):
    """Why an attempt at a lock failed, although the service decided."""

    HELD = "another client holds it"
    LATE = "it was granted when too little of its ttl was left"


class Grant(Protocol):
    """A lock that a provider has granted.

    It ends `ttl` seconds after it was granted or last extended, or sooner. If its holder's process is
    killed or stopped, other clients may have to wait for longer, such as until its session expires.
    """

    @property
    def fence(self) -> int | None:
        """A number that grows with every holder of the name, for all time; `None` without one."""

    @property
    def token(self) -> bytes:
        """What the service keeps for this grant alone, such as 16 random bytes."""

    def remaining(self) -> float:
        """Return for how many more seconds it is surely held; 0 when it is not.

        Ask no server: count down by `time.monotonic()` from the moment before the last request that the
        service has confirmed, less what clocks may drift. Any thread may call this.
        """

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` with a reason as soon as the service tells that the lock is lost.

        Call it at once if that is known already, and from any thread that the service can spare:
        observers may take locks in it. Not for a grant whose time simply ran out: `remaining` tells
        that. Called once, right after the attempt.
        """

    def end(self, *, lost: bool) -> None:
        """Count as ended from now on: the client releases it, or has found it lost.

        An extension in progress revives nothing. Any thread may call this, and `release` may follow.
        """

    async def extend(self, ttl: float, deadline: float) -> bool:
        """Have the service confirm it, for `ttl` seconds from now; return whether it is still held.

        `False` means that it is lost. Raise `LockUnavailable` if the service does not answer, and
        `ConfigurationError` for a ttl that an attempt would refuse: the grant goes on counting down.
        Several extensions may run at once.
        """

    async def release(self) -> bool:
        """Release it; return whether the service still had it for this holder.

        Never raise an error of the service, and wait for it no longer than a call: what could not be
        removed is removed in the background, or expires.
        """


class LockProvider(Protocol):
    """The locks of one service, for one client, whose threads or tasks call it at the same time.

    It connects at its first attempt, not before, and again in a forked child. Deadlines are
    `time.monotonic()` seconds, for the whole call.
    """

    async def attempt(self, lock: NamedLock, ttl: float, deadline: float) -> Grant | Refusal:
        """Try once to take a lock; never wait for its holder.

        `ttl` is in seconds. Raise `LockUnavailable` if the service cannot decide by the deadline,
        `ConfigurationError` for what it can never do, such as a ttl that is too short. An attempt that
        fails, is cancelled or is interrupted leaves nothing behind, or removes it in the background.
        """

    async def is_held(self, lock: NamedLock, deadline: float) -> bool:
        """Return whether any client holds the lock now. Raise `LockUnavailable` as `attempt` does."""

    async def close(self) -> None:
        """Release what this client holds, and close its connections. Idempotent.

        Attempts that come later raise `LockUnavailable`. Other clients of the process are not
        affected. In a forked child, leave the parent's connections and locks alone. A client may be
        dropped without this, so its provider must not be kept alive by anything but the client.
        """


class Holder(NamedTuple):
    """Who holds a lock, as far as a provider can tell; `None` stands for what it cannot.

    `owner` is a text for operators, such as host and process. `since` is the time of day in seconds,
    `remaining` the seconds until the lock ends unless it is extended.
    """

    name: bytes
    scope: LockScope
    owner: str | None = None
    since: float | None = None
    remaining: float | None = None
    fence: int | None = None


@runtime_checkable
class TellsHolders(Protocol):
    """A provider that can tell who holds a lock, and take it away: an optional capability.

    All raise `LockUnavailable` if the service does not answer by the deadline.
    """

    async def holder(self, lock: NamedLock, deadline: float) -> Holder | None:
        """Return who holds a lock, `None` if no client does."""

    async def holders(self, deadline: float) -> Sequence[Holder]:
        """Return the holders of all locks, of any namespace.

        Raise `UnsupportedError` if the service cannot list them.
        """

    async def break_lock(self, lock: NamedLock, deadline: float) -> bool:
        """Take a lock away from its holder, for another client to have; return whether there was one.

        The holder finds out by its next extension at the latest, if another client has it by then.
        """


class LockOptions(NamedTuple):
    """The options that a client passes to its lock provider, besides those in the URL.

    `timeout` is the usual length of a call, and `connect_timeout` bounds one dial, in seconds.
    `ssl_context` is the client's `ssl.SSLContext`, for a service over TLS, or `None`.
    """

    timeout: float = 0.5
    connect_timeout: float = 0.5
    ssl_context: Any = None  # core does not know the type


class LockProviderFactory(Protocol):
    """A factory of lock providers for a URL scheme, which a plugin registers.

    Both methods raise `ConfigurationError` for a bad URL, which they must not quote: it may hold a
    password. Neither connects yet.
    """

    def blocking(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of a blocking client: its coroutines never suspend."""

    def asyncio(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of an asyncio client; no event loop may be running yet."""
