"""`cached` and `configure` for programs with one cache: the default clients, created at the first call."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, ParamSpec, TypeVar, overload

from shardcache.backends.locking import ProcessLock
from shardcache.clients.base import caches_of, warn_of_few_lock_nodes
from shardcache.clients.blocking import Client
from shardcache.clients.cached import (
    AsyncCachedFunction,
    AsyncDecorator,
    AsyncManyDecorator,
    CachedFunction,
    Decorator,
    ManyDecorator,
)
from shardcache.clients.callables import NO_FUNCTION, function_to_cache
from shardcache.clients.function_cache import CacheContext
from shardcache.clients.key_builder import KeyChoice, KeySpec
from shardcache.clients.prefixes import PrefixRegistry
from shardcache.clients.results import CodecChoice, ResultOptions, Returns, check_codec, item_type
from shardcache.clients.tagging import TagChoice
from shardcache.core.cache_policy import (
    CachedTTL,
    CachePolicy,
    PolicyOptions,
    Span,
    cached_policy,
)
from shardcache.core.lifetimes import DEFAULT, Default
from shardcache.core.placement.nodes import Node
from shardcache.core.secrecy import takes_secrets
from shardcache.errors import ConfigurationError
from shardcache.log import log
from shardcache.plugin.manager import load
from shardcache.settings import Settings, names_nodes

if TYPE_CHECKING:
    from typing import Unpack

    from shardcache.clients.asyncio import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")

# Three nodes, so that a program without a server is already sharded.
EMBEDDED_URL: Final = "memory://a,b,c"


class Defaults:
    """The default clients: a blocking one and one for asyncio, each created at its first use."""

    def __init__(self) -> None:
        self.prefixes = PrefixRegistry(nodes_known=False)  # before the first call
        self._uses_locks = False
        self._creating = ProcessLock()
        self._caches: tuple[Client, CacheContext] | None = None
        self._async_caches: tuple[AsyncClient, CacheContext] | None = None
        self._settings: Settings | None = None
        self._client: Client | None = None
        self._async_client: AsyncClient | None = None

    def configure(self, settings: Settings) -> None:
        """Use these settings from the next call on; the present clients are closed or dropped."""
        with self._creating.current():
            self._settings = settings
            client, _ = self._take()
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close both clients; the next call creates one with the same settings."""
        client, async_client = self._take()
        try:
            if client is not None:
                client.close()
        finally:
            if async_client is not None:
                await async_client.aclose()

    def _take(self) -> tuple[Client | None, AsyncClient | None]:
        """Take the present clients away, so that the next call creates one."""
        with self._creating.current():
            clients = self._client, self._async_client
            self._client = self._async_client = None
            self._caches = self._async_caches = None
        return clients

    def note_locks(self) -> None:
        """Remember that a function takes locks: the log warns if there are too few nodes."""
        self._uses_locks = True
        for client in (self._client, self._async_client):
            self._warn(client)

    def client(self) -> Client:
        """Return the default client of blocking code."""
        client = self._client
        if client is not None:
            return client
        load()  # first, because a thread that loads plugins may wait for this lock
        with self._creating.current():
            while (client := self._client) is None:
                settings = self._settings
                created = Client.from_settings(self._settings_for(settings))
                if (
                    self._client is None and self._settings is settings
                ):  # a finalizer may have been faster
                    self._client = created
                    self._warn(created)
            return client

    def async_client(self) -> AsyncClient:
        """Return the default client of asyncio; it serves all event loops."""
        client = self._async_client
        if client is not None:
            return client
        # A program that blocks never loads asyncio.
        from shardcache.clients.asyncio import AsyncClient  # noqa: PLC0415

        load()  # first, because a thread that loads plugins may wait for this lock
        with self._creating.current():
            while (client := self._async_client) is None:
                settings = self._settings
                created = AsyncClient.from_settings(self._settings_for(settings))
                if self._async_client is None and self._settings is settings:  # as above
                    self._async_client = created
                    self._warn(created)
            return client

    def caches(self) -> CacheContext:
        """Return what the cached functions of the default client share."""
        client, known = self.client(), self._caches
        if known is None or known[0] is not client:
            known = self._caches = (client, caches_of(client))
        return known[1]

    def async_caches(self) -> CacheContext:
        """Return what the cached functions of the default asyncio client share."""
        client, known = self.async_client(), self._async_caches
        if known is None or known[0] is not client:
            known = self._async_caches = (client, caches_of(client))
        return known[1]

    def _settings_for(self, configured: Settings | None) -> Settings:
        """Return the settings of the default clients; log a warning when no nodes are configured."""
        if configured is not None:
            return configured
        if not names_nodes(os.environ):
            log.warning(
                "cached: SHARDCACHE_URL is not set and configure() was not called: caching in the"
                " memory of this process only"
            )
        return Settings.from_env(os.environ, EMBEDDED_URL)

    def _warn(self, client: Client | AsyncClient | None) -> None:
        if client is not None and self._uses_locks:
            warn_of_few_lock_nodes(client)


_defaults = Defaults()


class AnyDecorator:
    """The decorator that `shardcache.cached(…)` returns, for functions and coroutine functions."""

    __slots__ = ("_key_spec", "_policy", "_results")

    of_functions: ClassVar[type[Decorator]] = Decorator
    of_coroutine_functions: ClassVar[type[AsyncDecorator]] = AsyncDecorator

    def __init__(self, policy: CachePolicy, key_spec: KeySpec, results: ResultOptions) -> None:
        self._policy = policy
        self._key_spec = key_spec
        self._results = results

    @overload  # an async def fits both: the first decides
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the cached function; raise `ConfigurationError` if it cannot be cached."""
        options = self._policy, self._key_spec, _defaults.prefixes, self._results
        if inspect.iscoroutinefunction(function_to_cache(function, self._key_spec)):
            return self.of_coroutine_functions(_defaults.async_caches, *options)(function)
        return self.of_functions(_defaults.caches, *options)(function)


class AnyManyDecorator(AnyDecorator):
    """The decorator that `shardcache.cached_many(…)` returns, for both kinds of functions of many items."""

    __slots__ = ()

    of_functions = ManyDecorator
    of_coroutine_functions = AsyncManyDecorator


def cached(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
    seconds: Span | Default | None = DEFAULT,
    /,
    *,
    ttl: CachedTTL | Default = DEFAULT,
    policy: CachePolicy | None = None,
    key: KeyChoice = None,
    namespace: str | None = None,
    version: int | str = 0,
    tags: TagChoice = (),
    ignore: Sequence[str] = (),
    typed: bool = False,
    codec: CodecChoice | None = None,
    returns: Returns = None,
    **options: Unpack[PolicyOptions],
) -> AnyDecorator:
    """Cache the results of a function by its arguments, with the default client.

    Takes functions, methods and coroutine functions; its parameters are those of `Client.cached`. Without
    a ttl, and without a `default_ttl`, the first call raises `ConfigurationError`. The first call creates
    the client: from the settings of `configure`, else from `SHARDCACHE_URL`, else with three memory nodes
    and a warning in the log.

    >>> @cached(ttl=60, lock=True)
    ... def profile(user_id: int) -> dict[str, int]:
    ...     return {"id": user_id}
    >>> profile(7), profile.cache_info().recomputes
    ({'id': 7}, 1)
    """
    key_spec = KeySpec(
        key=key, namespace=namespace, version=version, tags=tags, ignore=ignore, typed=typed
    )
    policy = cached_policy(policy, seconds, ttl, options, "cached")
    if policy.quorum:
        _defaults.note_locks()
    if codec is not None:
        check_codec(codec)
    return AnyDecorator(policy, key_spec, ResultOptions(codec, returns))


def cached_many(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
    seconds: Span | Default | None = DEFAULT,
    /,
    *,
    ttl: CachedTTL | Default = DEFAULT,
    policy: CachePolicy | None = None,
    key: KeyChoice = None,
    namespace: str | None = None,
    version: int | str = 0,
    tags: TagChoice = (),
    ignore: Sequence[str] = (),
    typed: bool = False,
    codec: CodecChoice | None = None,
    returns: Returns = None,
    **options: Unpack[PolicyOptions],
) -> AnyManyDecorator:
    """Cache a function of many items, each item's value by itself, with the default client.

    Its parameters are those of `Client.cached_many`; else it is as `cached`.

    >>> @cached_many(ttl=60)
    ... def names(ids: list[int]) -> dict[int, str]:
    ...     return {id: f"user {id}" for id in ids}
    >>> names([7, 8]), names.cache_info().recomputes
    ({7: 'user 7', 8: 'user 8'}, 2)
    """
    key_spec = KeySpec(
        key=key, namespace=namespace, version=version, tags=tags, ignore=ignore, typed=typed
    )
    policy = cached_policy(policy, seconds, ttl, options, "cached_many")
    if codec is not None:
        check_codec(codec)
    results = ResultOptions(codec, item_type(returns, "cached_many"))
    return AnyManyDecorator(policy, key_spec, results)


@takes_secrets
def configure(
    nodes: str | Node | Settings | Iterable[str | Node],
    **options: Any,  # as the clients take them
) -> None:
    """Set the nodes that `cached` uses: a URL with settings in its query, nodes, or `Settings`.

    `options` are the parameters of `Client`. It may be called again: the blocking default client is then
    closed, the asyncio one dropped. Raise `ConfigurationError` listing every fault. Connects to nothing
    yet.
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


def default_client() -> Client:
    """Return the blocking client of `cached`; the first call creates it.

    It belongs to all users of the process, so do not close it; ask for it again after `configure`.
    Raise `ConfigurationError` for settings of the environment that cannot be used.
    """
    return _defaults.client()


def default_async_client() -> AsyncClient:
    """Return the asyncio client of `cached`; the first call creates it. It serves all event loops.

    As `default_client` else.
    """
    return _defaults.async_client()


async def aclose_default_clients() -> None:
    """Close the connections of both default clients, when an application ends.

    The next call of a cached function, if there is one, creates its client with the same settings.
    """
    await _defaults.aclose()
