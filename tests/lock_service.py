"""A lock service in this process, with fences, and the provider of its locks.

It stands for the servers of a real one: it can be unreachable, end a session, and be looked into.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from shardcache.core.lock_providers import (
    Holder,
    LockOptions,
    LockScope,
    NamedLock,
    Refusal,
)
from shardcache.errors import ConfigurationError, LockUnavailable
from shardcache.plugin.hookspecs import hookimpl
from shardcache.plugin.manager import load

SCHEME = "locks-of-this-test"
SHORTEST = 0.05  # seconds: the least ttl that the service takes

LockKey = tuple[LockScope, bytes]


def check_ttl(ttl: float) -> None:
    """Raise `ConfigurationError` for a ttl that is too short."""
    if ttl < SHORTEST:
        raise ConfigurationError(f"lock: ttl {ttl:g} s is less than {SHORTEST:g} s")


@dataclass(eq=False)
class ServiceGrant:
    """A lock that the service has granted, until `until` by its clock."""

    service: LockService
    key: LockKey
    fence: int
    until: float
    since: float = field(default_factory=time.time)
    token: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    lost: str = ""
    ended: bool = False
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)  # how the client has ended it

    def remaining(self) -> float:
        """Return for how many more seconds it is held."""
        self.service.fail("remaining")
        return 0.0 if self.lost or self.ended else max(0.0, self.until - self.service.clock())

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` when its session ends, or at once if it has."""
        self.service.fail("watch")
        self.listeners.append(on_lost)
        if self.lost:
            on_lost(self.lost)

    def end(self, *, lost: bool) -> None:
        """Extend it no more."""
        self.ended = True
        self.ends.append(lost)
        self.service.fail("end")

    async def extend(self, ttl: float, deadline: float) -> bool:
        """Extend it, if the service still has it."""
        self.service.fail("extend")
        self.service.answer(deadline)
        check_ttl(ttl)
        with self.service.changing:
            self.service.calls.append("extend")
            held = self.service.held.get(self.key) is self and self.remaining() > 0
            if held:
                self.until = self.service.clock() + ttl
            return held

    async def release(self) -> bool:
        """Release it; an unreachable service keeps it until its end."""
        self.service.fail("release")
        with self.service.changing:
            self.service.calls.append("release")
            if not self.service.reachable:
                return True
            held = self.service.holds(self.key) and self.service.held[self.key] is self
            if held:
                del self.service.held[self.key]
            return held


class LockService:
    """Locks by scope and name. `calls` are what it was asked for; `closed` counts closed providers.

    The methods named in `failing` raise what no provider may raise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.held: dict[LockKey, ServiceGrant] = {}
        self.fences = itertools.count(1)
        self.reachable = True
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.closed = 0
        self.options: list[LockOptions] = []
        self.changing = threading.RLock()

    def fail(self, call: str) -> None:
        """Raise an error that the protocol does not know, if the method is to fail."""
        if call in self.failing:
            raise OSError(f"no space left for {call}")

    def holds(self, key: LockKey) -> bool:
        """Return whether anybody holds a lock."""
        return key in self.held and self.held[key].until > self.clock()

    def answer(self, deadline: float) -> None:
        """Raise `LockUnavailable` while it cannot be reached."""
        assert deadline > self.clock()
        if not self.reachable:
            raise LockUnavailable("the lock service cannot be reached")

    def expire(self) -> None:
        """End the sessions of all holders, and tell them."""
        with self.changing:
            expired, self.held = list(self.held.values()), {}
        for grant in expired:
            grant.lost = "its session expired"
            for on_lost in grant.listeners:
                on_lost(grant.lost)

    async def attempt(self, lock: NamedLock, ttl: float, deadline: float) -> ServiceGrant | Refusal:
        """Grant a lock, if it is free."""
        self.fail("attempt")
        self.answer(deadline)
        check_ttl(ttl)
        key = (lock.scope, lock.name)
        with self.changing:
            self.calls.append("attempt")
            if self.holds(key):
                return Refusal.HELD
            grant = ServiceGrant(self, key, next(self.fences), self.clock() + ttl)
            self.held[key] = grant
            return grant

    async def is_held(self, lock: NamedLock, deadline: float) -> bool:
        """Return whether anybody holds a lock."""
        self.fail("is_held")
        self.answer(deadline)
        return self.holds((lock.scope, lock.name))

    async def close(self) -> None:
        """Count it."""
        self.closed += 1
        self.fail("close")


class TellingService(LockService):
    """A service that tells who holds its locks."""

    async def holder(self, lock: NamedLock, deadline: float) -> Holder | None:
        """Return who holds a lock."""
        self.fail("holder")
        found = [each for each in await self.holders(deadline) if each.name == lock.name]
        return next((each for each in found if each.scope is lock.scope), None)

    async def holders(self, deadline: float) -> Sequence[Holder]:
        """Return the holders of all locks."""
        self.fail("holders")
        self.answer(deadline)
        return [
            Holder(name, scope, "this test", grant.since, grant.remaining(), grant.fence)
            for (scope, name), grant in self.held.items()
            if self.holds((scope, name))
        ]

    async def break_lock(self, lock: NamedLock, deadline: float) -> bool:
        """Take a lock away."""
        self.fail("break_lock")
        self.answer(deadline)
        key = (lock.scope, lock.name)
        held = self.holds(key)
        self.held.pop(key, None)
        return held


_services: dict[str, LockService] = {}


class Services:
    """The factory for the scheme: the host of a URL names one of the services that run."""

    def blocking(self, url: str, options: LockOptions) -> LockService:
        """Return the service, which is its own provider."""
        service = _services[url.partition("://")[2]]
        service.options.append(options)
        return service

    asyncio = blocking


class Plugin:
    """The plugin of these services."""

    @hookimpl
    def shardcache_register_lock_providers(self, registry):
        """Register the scheme."""
        registry.register(SCHEME, Services())


@contextmanager
def running(service: LockService) -> Iterator[str]:
    """Yield the URL of a service while it runs."""
    plugins = load()
    if SCHEME not in plugins.lock_providers:
        plugins.add(Plugin(), SCHEME, "these tests")
    name = secrets.token_hex(4)
    _services[name] = service
    try:
        yield f"{SCHEME}://{name}"
    finally:
        del _services[name]
