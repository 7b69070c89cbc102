"""A function whose values are cached, for both worlds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial, partialmethod, update_wrapper
from types import FunctionType, MethodType, ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    NamedTuple,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from shardcache.clients.key_builder import KeyBuilder, KeySpec, PrefixRegistry, function_name
from shardcache.core.caching import CachePolicy, described
from shardcache.core.lifetimes import DEFAULT
from shardcache.errors import ConfigurationError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.invalidation import tags
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.port import run
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.counters import RecomputeCounters
from shardcache.operations.recompute.outcomes import NOT_MADE
from shardcache.operations.recompute.protection import Protection
from shardcache.operations.recompute.request import Request

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Q = ParamSpec("Q")

# Arguments are passed on as they come, and descriptors bind whatever they are found on.
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
ValueOf: TypeAlias = Callable[[Args, Kwargs], Coroutine[Any, Any, Any]]

# What functions have beside what `functools.update_wrapper` copies.
_OF_FUNCTIONS: Final = ("__closure__", "__code__", "__defaults__", "__globals__", "__kwdefaults__")

set_slot = object.__setattr__

_LIKE_PROPERTIES: Final = (cached_property, partialmethod, property)


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


class CacheContext(NamedTuple):
    """What the cached functions of one client have in common.

    `cluster` returns the client's nodes as they are when a call begins.
    """

    cluster: Callable[[], Cluster]
    protection: Protection
    generations: Generations


class FunctionCache:
    """The cache of one function: its keys, its terms, its counters. The text for both worlds."""

    __slots__ = ("_context", "_defaulted", "_keys", "counters", "function", "policy")

    def __init__(
        self,
        context: Callable[[], CacheContext],
        function: Callable[..., Any],
        policy: CachePolicy,
        keys: KeyBuilder,
    ) -> None:
        self._context = _checked(context, keys) if keys.is_anonymous else context
        self.function = function
        self.policy = policy
        self._defaulted = policy  # with the default ttl of the client
        self._keys = keys
        self.counters = RecomputeCounters(function_name(function))

    async def value(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the cached value, or compute it."""
        return await cached_value.get(await self._request(args, kwargs, reads=True))

    async def peek(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the cached value, or `None`."""
        value = await cached_value.peek(await self._request(args, kwargs, reads=True))
        return None if value is NOT_MADE else value

    async def put(self, value: Any, args: Args, kwargs: Kwargs) -> bool:
        """Store a value."""
        return await cached_value.put(await self._request(args, kwargs), value)

    async def refresh(self, args: Args, kwargs: Kwargs) -> Any:
        """Compute the value and store it."""
        return await cached_value.refresh(await self._request(args, kwargs))

    async def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value."""
        return await cached_value.invalidate(await self._request(args, kwargs))

    async def invalidate_all(self) -> bool:
        """Remove all values."""
        context = self._context()
        cluster, generations = context.cluster(), context.generations
        return await generations.renew(cluster, generations[self._keys.prefix])

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make the values with a tag misses."""
        return await tags.invalidate(self._context().cluster(), tag)

    async def key_for(self, args: Args, kwargs: Kwargs) -> str | bytes:
        """Return the key of a call."""
        return (await self._request(args, kwargs)).key

    async def _request(self, args: Args, kwargs: Kwargs, *, reads: bool = False) -> Request:
        """Return the call, in the generation in force; if need be that is looked up, and it `reads`."""
        context = self._context()
        cluster = context.cluster()
        policy = self.policy
        if policy.ttl is DEFAULT:
            policy = self._with_default_ttl(cluster)
        generations = context.generations
        generation = generations[self._keys.prefix]
        name = generation.name
        call = Request(
            cluster,
            self._keys.key(args, kwargs, name),
            lambda: self.function(*args, **kwargs),
            policy,
            context.protection,
            self.counters,
            self._keys.tags(args, kwargs),
        )
        if generation.epoch is generations.epoch and call.io.now() < generations.due:
            return call
        await self._settle(call, generations, args, kwargs, reads=reads)
        return call

    async def _settle(
        self, call: Request, generations: Generations, args: Args, kwargs: Kwargs, *, reads: bool
    ) -> None:
        """Look up the generation of a call along with its read; rename the call if it is another."""
        cluster = call.cluster
        generation = generations[self._keys.prefix]
        name = generation.name
        wanted = [generation, generations.cleared] if cluster.clearable else [generation]
        deadline = cluster.deadline()
        asks = call.reads() if reads else []
        replies = await generations.settle(cluster, wanted, asks, deadline)
        if generation.name != name:
            call.rename(self._keys.key(args, kwargs, generation.name))
            replies = None
        if reads:
            if replies is None:  # what was read is void
                replies = await cluster.ask_timed(call.reads(), deadline)
            call.first = call.parse_replies([reply for reply, _ in replies])

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


def _checked(context: Callable[[], CacheContext], keys: KeyBuilder) -> Callable[[], CacheContext]:
    """Return `context` for a function that may be cached on some nodes only, which are known then."""

    def checked() -> CacheContext:
        found = context()
        keys.refuse_if_anonymous(found.cluster())
        return found

    return checked


class CachedBase(Generic[P, R]):
    """What both kinds of cached function have in common: they pass for the function, and count.

    Frameworks tell handlers from other objects by `inspect.isfunction`, and read code, annotations and
    signature. So it says that it is a function, as the wrappers of wrapt do, and has what one has. It
    cannot be one: what `method` of an instance is then, Python decides, and its `get` would not know
    the instance.

    `__call__` is a slot that holds a plain function: it is called with one frame less than a method
    of this class, and whoever looks at it finds no method with type variables as annotations.
    """

    __slots__ = ("__call__", "__dict__", "__weakref__", "_bound", "_cache")

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, cache: FunctionCache) -> None:
        function = cache.function
        self._start(cache, ())
        own = type(self)
        # Attributes that the function was given, but for those that are methods here.
        vars(self).update(
            (name, value)
            for name, value in getattr(function, "__dict__", {}).items()
            if not hasattr(own, name)
        )
        for name in _OF_FUNCTIONS:
            vars(self)[name] = getattr(function, name, getattr(self.__call__, name))
        update_wrapper(self, function, updated=())

    def _start(self, cache: FunctionCache, bound: Args) -> None:
        self._cache = cache
        self._bound = bound
        set_slot(self, "__call__", self._make_request(cache.value, bound))  # to mypy it is a method

    if TYPE_CHECKING:

        @staticmethod
        def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Return what either kind returns."""

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type:
        """Return the type that frameworks take it for."""
        return FunctionType

    @property
    def policy(self) -> CachePolicy:
        """Return the terms on which values are kept."""
        return self._cache.policy

    def cache_info(self) -> CacheInfo:
        """Return what became of the calls in this process, of all instances for a method."""
        return CacheInfo(**self._cache.counters.counts)  # type: ignore[arg-type]  # ints but for one

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name, as functions are: a worker that imports its module has it."""
        return self._cache.function.__qualname__

    def __repr__(self) -> str:
        function = self._cache.function
        return f"<{type(self).__name__} {function.__module__}.{function.__qualname__}>"


class BoundBase(CachedBase[P, R]):
    """What both kinds of cached method have in common: they pass for a method, as above.

    Made as methods are, of a function and an instance, so that `weakref.WeakMethod` can make it again.
    """

    __slots__ = ()

    __func__: CachedBase[..., R]
    __self__: object

    def __init__(self, function: CachedBase[..., R], instance: object) -> None:
        self.__func__ = function
        self.__self__ = instance
        # What this class has as well, so that `__getattr__` is not asked for it.
        self.__annotations__ = function.__annotations__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self._start(function._cache, (instance,))  # noqa: SLF001 - another of this class

    def __getattr__(self, name: str) -> Any:  # whatever the function has
        """Return the function's own attribute, as methods do."""
        return getattr(self.__func__, name)

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> type:
        """Return the type that frameworks take it for."""
        return MethodType

    @property
    def __wrapped__(self) -> Callable[..., Any]:  # type: ignore[override]  # made when asked for
        """Return the method itself."""
        return MethodType(self.__func__.__wrapped__, self.__self__)

    def __get__(self, _instance: Any, _owner: Any = None) -> Any:
        """Return itself: it is bound."""
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundBase):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), self.__func__))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the instance, as methods are."""
        return getattr, (self.__self__, self.__func__.__name__)


class CachedFunction(CachedBase[P, R]):
    """A function whose values are cached; called as the function is, with further methods."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the cached value, or the result of the function, computed by one caller for all."""

    @staticmethod
    def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return run(lambda: value(bound + args, kwargs))

        return call

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
        """Make all values of this function misses; return whether that is in force.

        Other processes notice with their first call after a second. `False` when too few nodes have
        taken note: call it again.
        """
        return run(self._cache.invalidate_all)

    def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make every cached value with this tag a miss; return whether the tag's node took note."""
        return run(lambda: self._cache.invalidate_tag(tag))

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: nothing is read or stored."""
        value: R = self._cache.function(*self._bound, *args, **kwargs)
        return value

    # What a function in a class is bound to. To a type checker every function of a class looks alike:
    # a static method is one that could be called with nothing or with a plain value, a class method one
    # that takes the class.
    @overload
    def __get__(self: Callable[[], Any], instance: Any, owner: type) -> CachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # it is called as such
        self: Callable[Concatenate[bool, ...], Any], instance: Any, owner: type
    ) -> CachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # as above
        self: Callable[Concatenate[str, ...], Any], instance: Any, owner: type
    ) -> CachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # as above
        self: Callable[Concatenate[bytes, ...], Any], instance: Any, owner: type
    ) -> CachedFunction[P, R]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], R], instance: object, owner: S
    ) -> CachedFunction[Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedFunction[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> CachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance, or a class method to its class."""
        return self if instance is None else CachedMethod(self, instance)


class CachedMethod(BoundBase[P, R], CachedFunction[P, R]):
    """A cached function bound to an instance or a class."""

    __slots__ = ("__func__", "__self__")


class AsyncCachedFunction(CachedBase[P, R]):
    """A function whose values are cached; called as the function is, with further methods."""

    __slots__ = ()

    if TYPE_CHECKING:

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the cached value, or the result of the function, computed by one caller for all."""

    @staticmethod
    def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await value(bound + args, kwargs)

        return call

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
        """Make all values of this function misses; return whether that is in force.

        Other processes notice with their first call after a second. `False` when too few nodes have
        taken note: call it again.
        """
        return await self._cache.invalidate_all()

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Make every cached value with this tag a miss; return whether the tag's node took note."""
        return await self._cache.invalidate_tag(tag)

    async def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: nothing is read or stored."""
        value: R = await self._cache.function(*self._bound, *args, **kwargs)
        return value

    # What a function in a class is bound to. To a type checker every function of a class looks alike:
    # a static method is one that could be called with nothing or with a plain value, a class method one
    # that takes the class.
    @overload
    def __get__(
        self: Callable[[], Any], instance: Any, owner: type
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # it is called as such
        self: Callable[Concatenate[bool, ...], Any], instance: Any, owner: type
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # as above
        self: Callable[Concatenate[str, ...], Any], instance: Any, owner: type
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(  # type: ignore[misc]  # as above
        self: Callable[Concatenate[bytes, ...], Any], instance: Any, owner: type
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], Coroutine[Any, Any, R]], instance: object, owner: S
    ) -> AsyncCachedFunction[Q, R]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> AsyncCachedFunction[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> AsyncCachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Bind a method to its instance, or a class method to its class."""
        return self if instance is None else AsyncCachedMethod(self, instance)


class AsyncCachedMethod(BoundBase[P, R], AsyncCachedFunction[P, R]):
    """A cached function bound to an instance or a class."""

    __slots__ = ("__func__", "__self__")


class BoundToClass(classmethod):  # type: ignore[type-arg]  # it has no parameters at run time
    """A class method whose values are cached."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind it to the class. Python 3.13 would make a plain method, without `get` and the rest."""
        function: Any = self.__func__
        return function.__get__(type(instance) if owner is None else owner)


# Stands for the function where a decorator was called without one.
NO_FUNCTION: Final[Any] = object()


class Decorator:
    """What `cached(…)` returns: makes a cached function of a function."""

    __slots__ = ("_context", "_key_spec", "_policy", "_prefixes")

    def __init__(
        self,
        context: Callable[[], CacheContext],
        policy: CachePolicy,
        key_spec: KeySpec,
        prefixes: PrefixRegistry,
    ) -> None:
        self._context = context
        self._prefixes = prefixes
        self._policy = policy
        self._key_spec = key_spec

    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the function with its values cached; raise `ConfigurationError` if it cannot be."""
        plain = unwrapped(function, self._key_spec)
        if inspect.iscoroutinefunction(plain):
            raise ConfigurationError(
                f"cached {function_name(plain)}: an async def needs an AsyncClient"
            )
        return _bound_as(function, CachedFunction(self._cache(plain)))

    def _cache(self, function: Callable[..., Any]) -> FunctionCache:
        keys = KeyBuilder(function, self._key_spec)
        self._prefixes.claim(keys, lambda: self._context().cluster())
        policy = self._policy
        if policy.refresh == "auto" and self._key_spec.names("ignore"):
            # What is not part of the key, such as a session, often ends with its request.
            policy = replace(policy, refresh="inline")
        return FunctionCache(self._context, function, policy, keys)


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
        plain = unwrapped(function, self._key_spec)
        if not inspect.iscoroutinefunction(plain):
            raise ConfigurationError(f"cached {function_name(plain)}: {_why_not_awaited(plain)}")
        return _bound_as(function, AsyncCachedFunction(self._cache(plain)))


def unwrapped(function: Any, key_spec: KeySpec) -> Callable[..., Any]:
    """Return the function to cache; raise `ConfigurationError` if there is none.

    What has no name of its own, such as a `functools.partial`, needs a namespace, and gets a function
    that calls it.
    """
    if function is NO_FUNCTION:
        raise ConfigurationError(
            "cached: there is no function to cache; write @client.cached(ttl=…) above one, or"
            " client.cached(ttl=…)(function)"
        )
    plain = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
    innermost = _innermost(plain)
    if isinstance(function, _LIKE_PROPERTIES):
        raise ConfigurationError(
            f"cached: {described(function)} is no function; write @client.cached(ttl=…) below it,"
            " above the function"
        )
    if not callable(plain) or isinstance(plain, type):
        raise ConfigurationError(
            f"cached: {described(plain)} is no function; write @client.cached(ttl=…) above one"
        )
    if _is_bound(innermost):
        raise ConfigurationError(
            f"cached {described(innermost)}: it is bound to one object, and keys could not tell it from"
            " another's; decorate the method in its class"
        )
    if any(map(_generates, (plain, type(plain).__call__))):
        raise ConfigurationError(
            f"cached {described(innermost)}: what a generator yields cannot be served twice; return a"
            " list"
        )
    return plain if _has_name(plain) else _with_name(plain, innermost, key_spec)


def _innermost(function: Any) -> Any:
    """Return what a `partial` calls in the end."""
    while isinstance(function, partial):
        function = function.func
    return function


def _is_bound(function: Any) -> bool:
    """Return whether a function is a method of one object, which may be built in, or of one class."""
    owner = getattr(function, "__self__", None)
    return inspect.isroutine(function) and owner is not None and not isinstance(owner, ModuleType)


def _generates(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _has_name(function: Any) -> bool:
    """Return whether a function has a module and a name, which what is built in may lack."""
    if isinstance(function, FunctionType):
        return True
    names = (getattr(function, name, None) for name in ("__module__", "__qualname__"))
    return inspect.isroutine(function) and all(isinstance(name, str) for name in names)


def _with_name(function: Any, innermost: Any, key_spec: KeySpec) -> Callable[..., Any]:
    """Return a function that calls one without a name; it has the name of what is called in the end."""
    if not key_spec.namespace:
        raise ConfigurationError(
            f"cached: {described(function)} has no module and name of its own, by which its values could"
            " be told from those of another; give namespace=…"
        )
    named: Callable[..., Any]
    if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):

        async def named(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

    else:

        def named(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    source = innermost if _has_name(innermost) else type(innermost)
    named.__module__, named.__doc__ = source.__module__, source.__doc__
    named.__name__, named.__qualname__ = source.__name__, source.__qualname__
    if isinstance(function, partial):  # without what it may have been given by `update_wrapper`
        function = partial(function.func, *function.args, **function.keywords)
    vars(named)["__wrapped__"] = function
    with suppress(ValueError):  # not every built-in has one
        vars(named)["__signature__"] = inspect.signature(function)
    return named


def _bound_as(function: object, cached: Any) -> Any:
    """Return a cached function as a class method or a static method, if `function` is one."""
    if isinstance(function, classmethod):
        return BoundToClass(cached)
    return staticmethod(cached) if isinstance(function, staticmethod) else cached


def _why_not_awaited(function: Callable[..., Any]) -> str:
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        return (
            "a plain def that wraps an async def cannot be awaited; make the wrapper an async def"
        )
    return "a plain def needs a blocking Client"
