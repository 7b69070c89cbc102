"""A function whose values are cached, for both worlds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import update_wrapper
from types import MethodType
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from shardcache.clients.naming import CallKeys, Naming, Prefixes, function_name
from shardcache.core.caching import CachePolicy, described
from shardcache.core.lifetimes import DEFAULT
from shardcache.errors import ConfigurationError
from shardcache.operations import computed, tags
from shardcache.operations.call import Call
from shardcache.operations.cluster import Cluster
from shardcache.operations.generations import Generation
from shardcache.operations.outcomes import NOT_MADE
from shardcache.operations.port import run
from shardcache.operations.tally import Tally

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Q = ParamSpec("Q")

# Arguments are passed on as they come, and descriptors bind whatever they are found on.
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class CacheInfo(NamedTuple):
    """What became of the calls of one cached function in this process.

    What each counter means is in the reference, under "Counters".
    """

    hits: int
    misses: int
    stale: int
    early: int
    recomputes: int
    coalesced: int
    lock_waits: int
    wait_seconds: float
    timeouts: int
    rejected: int
    uncached: int
    errors: int
    swallowed: int
    cache_errors: int
    locks_lost: int
    locks_unavailable: int


class FunctionCache:
    """The cache of one function: its keys, its terms, its counters. The text for both worlds.

    `cluster` gives the client's nodes as they are when a call begins.
    """

    __slots__ = ("_cluster", "_defaulted", "_generation", "_keys", "function", "policy", "tally")

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        function: Callable[..., Any],
        policy: CachePolicy,
        keys: CallKeys,
    ) -> None:
        self._cluster = cluster
        self.function = function
        self.policy = policy
        self._defaulted = policy  # with the default ttl of the client
        self._keys = keys
        self._generation = Generation(self._keys.prefix)
        self.tally = Tally(function_name(function))

    async def value(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the cached value, or compute it."""
        return await computed.value(await self._call(args, kwargs))

    async def peek(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the cached value, or `None`."""
        value = await computed.peek(await self._call(args, kwargs))
        return None if value is NOT_MADE else value

    async def put(self, value: Any, args: Args, kwargs: Kwargs) -> bool:
        """Store a value."""
        return await computed.put(await self._call(args, kwargs), value)

    async def refresh(self, args: Args, kwargs: Kwargs) -> Any:
        """Compute the value and store it."""
        return await computed.refresh(await self._call(args, kwargs))

    async def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value."""
        return await computed.invalidate(await self._call(args, kwargs))

    async def invalidate_all(self) -> bool:
        """Remove all values."""
        return await self._generation.renew(self._cluster())

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make the values with a tag misses."""
        return await tags.invalidate(self._cluster(), tag)

    async def key_for(self, args: Args, kwargs: Kwargs) -> str | bytes:
        """Return the key of a call."""
        await self._generation.look(self._cluster())
        return self._keys.key(args, kwargs, self._generation.name)

    async def _call(self, args: Args, kwargs: Kwargs) -> Call:
        cluster = self._cluster()
        policy = self.policy
        if policy.ttl is DEFAULT:
            policy = self._with_default_ttl(cluster)
        await self._generation.look(cluster)
        return Call(
            cluster,
            self._keys.key(args, kwargs, self._generation.name),
            lambda: self.function(*args, **kwargs),
            policy,
            self.tally,
            self._keys.tags(args, kwargs),
        )

    def _with_default_ttl(self, cluster: Cluster) -> CachePolicy:
        """Return the policy with the client's `default_ttl`; raise `ConfigurationError` without one."""
        seconds = cluster.default_ttl
        if seconds is None:
            raise ConfigurationError(
                f"cached {function_name(self.function)}: there is no ttl, and the default client has"
                " no default_ttl; write @cached(ttl=…) in seconds, or ttl=None for no expiry"
            )
        policy = self._defaulted
        if policy.ttl != seconds:
            policy = self._defaulted = replace(self.policy, ttl=seconds)
        return policy


class CachedBase(Generic[P, R]):
    """What both kinds of cached function have in common: how they are bound, and what they count."""

    __wrapped__: Callable[..., Any]

    def __init__(self, cache: FunctionCache, binding: Binding) -> None:
        function: Any = self  # for mypy: it is called as one
        # First, for what is wrapped may be such a function itself, with attributes of these names.
        update_wrapper(function, cache.function)
        self._cache = cache
        self._binding = binding
        self._bound: Args = ()

    @property
    def policy(self) -> CachePolicy:
        """Return the terms on which values are kept."""
        return self._cache.policy

    def cache_info(self) -> CacheInfo:
        """Return what became of the calls in this process, of all instances for a method."""
        return CacheInfo(**self._cache.tally.counts)  # type: ignore[arg-type]  # ints but for one

    def _bind(self, instance: object, owner: type | None) -> Self:
        bound = self._binding(instance, owner)
        if not bound:
            return self
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), _bound=bound, _binding=_bind_nothing)
        twin.__wrapped__ = MethodType(self.__wrapped__, bound[0])  # for signatures without `self`
        return twin

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name, as functions are: a worker that imports its module has it."""
        if self._bound:
            return getattr, (self._bound[0], self._cache.function.__name__)
        return self._cache.function.__qualname__

    def __repr__(self) -> str:
        function = self._cache.function
        return f"<{type(self).__name__} {function.__module__}.{function.__qualname__}>"


class CachedFunction(CachedBase[P, R]):
    """A function whose values are cached; called as the function is, with further methods."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached value, or the result of the function, computed by one caller for all."""
        value: R = run(lambda: self._cache.value(self._bound + args, kwargs))
        return value

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """Return the key of the call with these arguments, as for `client.get`."""
        return run(lambda: self._cache.key_for(self._bound + args, kwargs))

    def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, fresh or stale, or `None`; compute nothing."""
        value: R | None = run(lambda: self._cache.peek(self._bound + args, kwargs))
        return value

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Store `value` as if the function had just computed it; return whether it was stored."""
        return run(lambda: self._cache.put(value, self._bound + args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is cached; store and return its value."""
        value: R = run(lambda: self._cache.refresh(self._bound + args, kwargs))
        return value

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value, and discard a computation in progress; return whether anything was there."""
        return run(lambda: self._cache.invalidate(self._bound + args, kwargs))

    def invalidate_all(self) -> bool:
        """Make all values of this function misses; return whether its node took note.

        Other processes notice within about a second.
        """
        return run(self._cache.invalidate_all)

    def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make every cached value with this tag a miss; return whether the tag's node took note."""
        return run(lambda: self._cache.invalidate_tag(tag))

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: nothing is read or stored."""
        value: R = self._cache.function(*self._bound, *args, **kwargs)
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind a method to its instance, or a class method to its class."""
        return self._bind(instance, owner)


class AsyncCachedFunction(CachedBase[P, R]):
    """A function whose values are cached; called as the function is, with further methods."""

    def __init__(self, cache: FunctionCache, binding: Binding) -> None:
        super().__init__(cache, binding)
        _mark_as_coroutine_function(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached value, or the result of the function, computed by one caller for all."""
        value: R = await self._cache.value(self._bound + args, kwargs)
        return value

    async def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """Return the key of the call with these arguments, as for `client.get`."""
        return await self._cache.key_for(self._bound + args, kwargs)

    async def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, fresh or stale, or `None`; compute nothing."""
        value: R | None = await self._cache.peek(self._bound + args, kwargs)
        return value

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Store `value` as if the function had just computed it; return whether it was stored."""
        return await self._cache.put(value, self._bound + args, kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function whatever is cached; store and return its value."""
        value: R = await self._cache.refresh(self._bound + args, kwargs)
        return value

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value, and discard a computation in progress; return whether anything was there."""
        return await self._cache.invalidate(self._bound + args, kwargs)

    async def invalidate_all(self) -> bool:
        """Make all values of this function misses; return whether its node took note.

        Other processes notice within about a second.
        """
        return await self._cache.invalidate_all()

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make every cached value with this tag a miss; return whether the tag's node took note."""
        return await self._cache.invalidate_tag(tag)

    async def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: nothing is read or stored."""
        value: R = await self._cache.function(*self._bound, *args, **kwargs)
        return value

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> AsyncCachedFunction[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind a method to its instance, or a class method to its class."""
        return self._bind(instance, owner)


Binding = Callable[[object, type | None], Args]

# Stands for the function where a decorator was called without one.
NO_FUNCTION: Final[Any] = object()


def _bind_nothing(_instance: object, _owner: type | None) -> Args:
    return ()


def _bind_instance(instance: object, _owner: type | None) -> Args:
    return () if instance is None else (instance,)


def _bind_class(instance: object, owner: type | None) -> Args:
    return (type(instance) if owner is None else owner,)


class Decorator:
    """What `cached(…)` returns: makes a cached function of a function."""

    __slots__ = ("_cluster", "_naming", "_policy", "_prefixes")

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        policy: CachePolicy,
        naming: Naming,
        prefixes: Prefixes,
    ) -> None:
        self._cluster = cluster
        self._policy = policy
        self._naming = naming
        self._prefixes = prefixes

    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the function with its values cached; raise `ConfigurationError` if it cannot be."""
        plain, binding = unwrapped(function)
        if inspect.iscoroutinefunction(plain):
            raise ConfigurationError(
                f"cached {function_name(plain)}: an async def needs an AsyncClient"
            )
        return CachedFunction(self._cache(plain), binding)

    def _cache(self, function: Callable[..., Any]) -> FunctionCache:
        keys = CallKeys(function, self._naming)
        self._prefixes.claim(keys)
        policy = self._policy
        if policy.refresh == "auto" and self._naming.names("ignore"):
            # What is not part of the key, such as a session, often ends with its request.
            policy = replace(policy, refresh="inline")
        return FunctionCache(self._cluster, function, policy, keys)


class AsyncDecorator(Decorator):
    """What `cached(…)` returns: makes a cached function of an `async def`."""

    __slots__ = ()

    @overload  # type: ignore[override]  # its functions are awaited
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the function with its values cached; raise `ConfigurationError` if it cannot be."""
        plain, binding = unwrapped(function)
        if not inspect.iscoroutinefunction(plain):
            raise ConfigurationError(
                f"cached {function_name(plain)}: a plain def needs a blocking Client"
            )
        return AsyncCachedFunction(self._cache(plain), binding)


def unwrapped(function: Any) -> tuple[Callable[..., Any], Binding]:
    """Return the function itself and how it is bound; raise `ConfigurationError` if it is none."""
    if function is NO_FUNCTION:
        raise ConfigurationError(
            "cached: there is no function to cache; write @client.cached(ttl=…) above one, or"
            " client.cached(ttl=…)(function)"
        )
    plain = function
    binding: Binding = _bind_instance
    if isinstance(function, classmethod):
        plain, binding = function.__func__, _bind_class
    elif isinstance(function, staticmethod):
        plain, binding = function.__func__, _bind_nothing
    if isinstance(plain, MethodType):
        raise ConfigurationError(
            f"cached {function_name(plain)}: it is bound to one object, and keys could not tell it"
            " from another's; decorate the method in its class"
        )
    if not inspect.isroutine(plain) or not hasattr(plain, "__qualname__"):
        raise ConfigurationError(
            f"cached: {described(plain)} is no function; write @client.cached(ttl=…), with parentheses,"
            " above a function"
        )
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise ConfigurationError(
            f"cached {function_name(plain)}: what a generator yields cannot be served twice; return a list"
        )
    return plain, binding


def _mark_as_coroutine_function(function: object) -> None:
    """Let frameworks see that it is to be awaited."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:  # since 3.12
        mark(function)
    else:
        # What asyncio itself looks for, and so do frameworks.
        import asyncio.coroutines  # noqa: PLC0415 - only what is awaited comes here

        setattr(function, "_is_coroutine", getattr(asyncio.coroutines, "_is_coroutine"))  # noqa: B009, B010
