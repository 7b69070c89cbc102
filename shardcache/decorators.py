"""`cached` and `configure` for programs with one cache: the default clients, made at the first call."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, overload

from shardcache.backends.locking import ProcessLock
from shardcache.clients.base import advise_on_locks, caches_of
from shardcache.clients.binding import NO_FUNCTION, unwrapped
from shardcache.clients.blocking import Client
from shardcache.clients.cached import AsyncCachedFunction, AsyncDecorator, CachedFunction, Decorator
from shardcache.clients.function_cache import CacheContext
from shardcache.clients.key_builder import KeyChoice, KeySpec, PrefixRegistry
from shardcache.core.cache_policy import (
    CACHED_OPTIONS,
    CachedTTL,
    CachePolicy,
    PolicyOptions,
    Span,
    check_options,
    resolve_ttl,
)
from shardcache.core.lifetimes import DEFAULT, Default
from shardcache.core.placement.nodes import Node
from shardcache.core.secrecy import takes_secrets
from shardcache.errors import ConfigurationError
from shardcache.plugin.manager import load
from shardcache.settings import Settings, names_nodes

if TYPE_CHECKING:
    from typing import Unpack

    from shardcache.clients.asyncio import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")

# Three, so that a program tried out without a server already shards.
EMBEDDED_URL: Final = "memory://a,b,c"

log = logging.getLogger("shardcache")


class Defaults:
    """The default clients: one that blocks and one for event loops, each made when it is first used."""

    def __init__(self) -> None:
        self.prefixes = PrefixRegistry(nodes_known=False)  # before the first call
        self._takes_locks = False
        self._making = ProcessLock()
        self._settings: Settings | None = None
        self._client: Client | None = None
        self._async_client: AsyncClient | None = None

    def configure(self, settings: Settings) -> None:
        """Use these settings from the next call on; the clients made before are let go."""
        with self._making.own():
            self._settings = settings
            client, self._client, self._async_client = self._client, None, None
        if client is not None:
            client.close()

    def take_locks(self) -> None:
        """Take note that a function takes locks: the log tells if there are too few nodes for it."""
        self._takes_locks = True
        for client in (self._client, self._async_client):
            self._advise(client)

    def client(self) -> Client:
        """Give the default client of code that blocks."""
        client = self._client
        if client is not None:
            return client
        load()  # whoever loads the plugins may be waiting for this lock: first theirs
        with self._making.own():
            while (client := self._client) is None:
                settings = self._settings
                made = Client.from_settings(self._wanted(settings))
                if self._client is None and self._settings is settings:  # still, for a finalizer
                    self._client = made
                    self._advise(made)
            return client

    def async_client(self) -> AsyncClient:
        """Give the default client of event loops; one serves them all."""
        client = self._async_client
        if client is not None:
            return client
        # A program that blocks never loads asyncio.
        from shardcache.clients.asyncio import AsyncClient  # noqa: PLC0415

        load()  # whoever loads the plugins may be waiting for this lock: first theirs
        with self._making.own():
            while (client := self._async_client) is None:
                settings = self._settings
                made = AsyncClient.from_settings(self._wanted(settings))
                if self._async_client is None and self._settings is settings:  # as above
                    self._async_client = made
                    self._advise(made)
            return client

    def caches(self) -> CacheContext:
        """Return what the cached functions of the default client have in common."""
        return caches_of(self.client())

    def async_caches(self) -> CacheContext:
        """Return what the cached functions of the default asyncio client have in common."""
        return caches_of(self.async_client())

    def _wanted(self, configured: Settings | None) -> Settings:
        """Return the settings of the default clients; say in the log when nobody named any nodes."""
        if configured is not None:
            return configured
        if not names_nodes(os.environ):
            log.warning(
                "cached: SHARDCACHE_URL is not set and configure() was not called: caching in the"
                " memory of this process alone"
            )
        return Settings.from_env(os.environ, EMBEDDED_URL)

    def _advise(self, client: Client | AsyncClient | None) -> None:
        if client is not None and self._takes_locks:
            advise_on_locks(client)


_defaults = Defaults()


class AnyDecorator:
    """What the module's `cached(…)` returns: takes functions of both kinds."""

    __slots__ = ("_key_spec", "_policy")

    def __init__(self, policy: CachePolicy, key_spec: KeySpec) -> None:
        self._policy = policy
        self._key_spec = key_spec

    @overload  # an async def fits both: the first decides
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the function with its values cached; raise `ConfigurationError` if it cannot be."""
        if inspect.iscoroutinefunction(unwrapped(function, self._key_spec)):
            return AsyncDecorator(
                _defaults.async_caches, self._policy, self._key_spec, _defaults.prefixes
            )(function)
        decorator = Decorator(_defaults.caches, self._policy, self._key_spec, _defaults.prefixes)
        return decorator(function)


def cached(  # noqa: PLR0913 - what is told apart from the terms
    seconds: Span | Default | None = DEFAULT,
    /,
    *,
    ttl: CachedTTL | Default = DEFAULT,
    key: KeyChoice = None,
    namespace: str | None = None,
    version: int | str = 0,
    tags: Sequence[str] = (),
    ignore: Sequence[str] = (),
    typed: bool = False,
    **terms: Unpack[PolicyOptions],
) -> AnyDecorator:
    """Cache the results of a function by its arguments, with the default client.

    Takes functions, methods and coroutine functions; its parameters are those of `Client.cached`. Without
    a ttl, and without a `default_ttl`, the first call raises `ConfigurationError`. The client is made
    at the first call: of what `configure` was told, else of `SHARDCACHE_URL`, else of three memory
    nodes, which is a warning in the log.

    >>> @cached(ttl=60, lock=True)
    ... def profile(user_id: int) -> dict[str, int]:
    ...     return {"id": user_id}
    >>> profile(7), profile.cache_info().recomputes
    ({'id': 7}, 1)
    """
    key_spec = KeySpec(
        key=key, namespace=namespace, version=version, tags=tags, ignore=ignore, typed=typed
    )
    check_options(terms, "cached", *CACHED_OPTIONS)
    policy = CachePolicy(ttl=resolve_ttl(seconds, ttl, "cached"), **terms)
    if policy.quorum:
        _defaults.take_locks()
    return AnyDecorator(policy, key_spec)


@takes_secrets
def configure(nodes: str | Node | Settings | Iterable[str | Node], **options: Any) -> None:
    """Say which nodes `cached` uses: a URL with settings in its query, nodes, or `Settings`.

    `options` are the parameters of `Client`, of any type those take. May be called once more: the
    default clients made before are closed or let go. Raise `ConfigurationError` listing every
    fault; connects to nothing yet.
    """
    if isinstance(nodes, Settings):
        if options:
            raise ConfigurationError("configure: give settings or options, not both")
        settings = nodes
    elif isinstance(nodes, str) and not options:
        settings = Settings.from_url(nodes)
    else:
        settings = Settings.of(nodes=nodes, **options)
    _defaults.configure(settings)
