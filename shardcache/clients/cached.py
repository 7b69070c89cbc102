"""Cached functions of both clients, and the decorators that create them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import update_wrapper
from types import FunctionType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Final,
    Generic,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from shardcache.clients.callables import NO_FUNCTION, bind_as, function_to_cache, why_not_awaitable
from shardcache.clients.function_cache import Args, CacheContext, CacheInfo, FunctionCache, Kwargs
from shardcache.clients.key_builder import KeyBuilder, KeySpec, function_name
from shardcache.clients.many import ManyCache
from shardcache.clients.prefixes import PrefixRegistry
from shardcache.clients.results import ResultFormat, ResultOptions
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.values.entries import CacheEntry
from shardcache.errors import ConfigurationError
from shardcache.operations.port import run

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Q = ParamSpec("Q")

ValueOf: TypeAlias = Callable[[Args, Kwargs], Coroutine[Any, Any, Any]]

# Attributes of functions that `functools.update_wrapper` does not copy.
_OF_FUNCTIONS: Final = ("__closure__", "__code__", "__defaults__", "__globals__", "__kwdefaults__")

set_slot = object.__setattr__


class CachedBase(Generic[P, R]):
    """What both kinds of cached function share: they look like the function, and count calls.

    Frameworks recognise handlers by `inspect.isfunction`, and read code, annotations and signature. So
    this object reports that it is a function, as wrapt's wrappers do, and has a function's attributes.
    It cannot be a real one: Python would bind it to instances by itself, and `get` of the bound method
    would not know the instance.

    `__call__` is a slot that holds a plain function. That saves one frame per call, and a framework that
    inspects it finds no method with type variables as annotations.
    """

    __slots__ = ("__call__", "__dict__", "__weakref__", "_bound", "_cache")

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, cache: FunctionCache) -> None:
        function = cache.function
        self._set_up(cache, ())
        own = type(self)
        # Attributes that were set on the function, except those that are methods here.
        vars(self).update(
            (name, value)
            for name, value in getattr(function, "__dict__", {}).items()
            if not hasattr(own, name)
        )
        for name in _OF_FUNCTIONS:
            vars(self)[name] = getattr(function, name, getattr(self.__call__, name))
        update_wrapper(self, function, updated=())

    def _set_up(self, cache: FunctionCache, bound: Args) -> None:
        self._cache = cache
        self._bound = bound
        set_slot(self, "__call__", self._make_request(cache.value, bound))  # to mypy it is a method

    if TYPE_CHECKING:

        @staticmethod
        def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Return what either kind returns."""

    @property  # type: ignore[misc]  # read-only
    def __class__(self) -> type:
        """Return the type that frameworks should see."""
        return FunctionType

    @property
    def policy(self) -> CachePolicy:
        """Return the policy by which values are kept."""
        return self._cache.policy

    def cache_info(self) -> CacheInfo:
        """Return the counters of this process; for a method, those of all instances."""
        return CacheInfo(**self._cache.counters.counts)  # type: ignore[arg-type]  # ints but for one

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name, as functions are: a worker finds it by importing its module."""
        return self._cache.function.__qualname__

    def __repr__(self) -> str:
        function = self._cache.function
        return f"<{type(self).__name__} {function.__module__}.{function.__qualname__}>"


class BoundBase(CachedBase[P, R]):
    """What both kinds of cached method share: they look like a method, as above.

    Created of a function and an instance, as methods are: `weakref.WeakMethod` creates it again that way.
    """

    __slots__ = ()

    __func__: CachedBase[..., R]
    __self__: object

    def __init__(self, function: CachedBase[..., R], instance: object) -> None:
        self.__func__ = function
        self.__self__ = instance
        # Attributes that this class has as well: `__getattr__` is not asked for those.
        self.__annotations__ = function.__annotations__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self._set_up(function._cache, (instance,))  # noqa: SLF001 - another of this class

    def __getattr__(self, name: str) -> Any:  # whatever the function has
        """Return the function's own attribute, as methods do."""
        return getattr(self.__func__, name)

    @property  # type: ignore[misc]  # read-only
    def __class__(self) -> type:
        """Return the type that frameworks should see."""
        return MethodType

    @property
    def __wrapped__(self) -> Callable[..., Any]:  # type: ignore[override]  # created on access
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
            """Return the cached value; if it is missing, one caller recomputes it for all."""

    @staticmethod
    def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return run(lambda: value(bound + args, kwargs))

        return call

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """Return the key of the call with these arguments, as for `client.get`."""
        return run(lambda: self._cache.key_for(self._bound + args, kwargs))

    def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, fresh or stale, or `None`; recompute nothing."""
        value: R | None = run(lambda: self._cache.peek(self._bound + args, kwargs))
        return value

    def entry(self, *args: P.args, **kwargs: P.kwargs) -> CacheEntry[R] | None:
        """Return the cached value, fresh or stale, with its age; `None` if there is none."""
        return run(lambda: self._cache.entry(self._bound + args, kwargs))

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Store `value` as if the function had just returned it; return whether it was stored."""
        return run(lambda: self._cache.put(value, self._bound + args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Recompute the value even if it is cached; store and return it."""
        value: R = run(lambda: self._cache.refresh(self._bound + args, kwargs))
        return value

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value, and discard a recompute in progress; return whether there was either."""
        return run(lambda: self._cache.invalidate(self._bound + args, kwargs))

    def invalidate_all(self) -> bool:
        """Invalidate all values of this function; return whether that is in force.

        Other processes notice with their first call after a second. `False` means that too few nodes have
        confirmed it: call it again.
        """
        return run(self._cache.invalidate_all)

    def invalidate_tag(self, tag: str | bytes) -> bool:
        """Invalidate every cached value with this tag; return whether the tag's node has confirmed it."""
        return run(lambda: self._cache.invalidate_tag(tag))

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without reading or storing anything."""
        value: R = self._cache.function(*self._bound, *args, **kwargs)
        return value

    # How a function in a class is bound. A type checker sees no difference between its functions: a static
    # method is one that can be called without arguments or with a plain value, a class method one that
    # takes the class.
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
            """Return the cached value; if it is missing, one caller recomputes it for all."""

    @staticmethod
    def _make_request(value: ValueOf, bound: Args) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await value(bound + args, kwargs)

        return call

    async def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """Return the key of the call with these arguments, as for `client.get`."""
        return await self._cache.key_for(self._bound + args, kwargs)

    async def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the cached value, fresh or stale, or `None`; recompute nothing."""
        value: R | None = await self._cache.peek(self._bound + args, kwargs)
        return value

    async def entry(self, *args: P.args, **kwargs: P.kwargs) -> CacheEntry[R] | None:
        """Return the cached value, fresh or stale, with its age; `None` if there is none."""
        return await self._cache.entry(self._bound + args, kwargs)

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Store `value` as if the function had just returned it; return whether it was stored."""
        return await self._cache.put(value, self._bound + args, kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Recompute the value even if it is cached; store and return it."""
        value: R = await self._cache.refresh(self._bound + args, kwargs)
        return value

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value, and discard a recompute in progress; return whether there was either."""
        return await self._cache.invalidate(self._bound + args, kwargs)

    async def invalidate_all(self) -> bool:
        """Invalidate all values of this function; return whether that is in force.

        Other processes notice with their first call after a second. `False` means that too few nodes have
        confirmed it: call it again.
        """
        return await self._cache.invalidate_all()

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Invalidate every cached value with this tag; return whether the tag's node has confirmed it."""
        return await self._cache.invalidate_tag(tag)

    async def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without reading or storing anything."""
        value: R = await self._cache.function(*self._bound, *args, **kwargs)
        return value

    # How a function in a class is bound. A type checker sees no difference between its functions: a static
    # method is one that can be called without arguments or with a plain value, a class method one that
    # takes the class.
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


class Decorator:
    """The decorator that `client.cached(…)` returns for functions."""

    __slots__ = ("_context", "_key_spec", "_policy", "_prefixes", "_results")

    cache_type: ClassVar[type[FunctionCache]] = FunctionCache

    def __init__(
        self,
        context: Callable[[], CacheContext],
        policy: CachePolicy,
        key_spec: KeySpec,
        prefixes: PrefixRegistry,
        results: ResultOptions,
    ) -> None:
        self._context = context
        self._prefixes = prefixes
        self._policy = policy
        self._key_spec = key_spec
        self._results = results

    @overload
    def __call__(self, function: Callable[P, R]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the cached function; raise `ConfigurationError` if it cannot be cached."""
        plain = function_to_cache(function, self._key_spec)
        if inspect.iscoroutinefunction(plain):
            raise ConfigurationError(
                f"cached {function_name(plain)}: an async def needs an AsyncClient"
            )
        return bind_as(function, CachedFunction(self._cache(plain)))

    def _cache(self, function: Callable[..., Any]) -> FunctionCache:
        results = self._result_format(function)
        keys = KeyBuilder(function, self._key_spec)
        self._prefixes.claim(keys, lambda: self._context().cluster())
        policy = self._policy
        if policy.refresh == "auto" and self._key_spec.ignored:
            # An ignored argument, such as a database session, often ends with its request.
            policy = replace(policy, refresh="inline")
        return self.cache_type(self._context, function, policy, keys, results)

    def _result_format(self, function: Callable[..., Any]) -> ResultFormat | None:
        """Return how results are stored; `None` if that is as the client's other values."""
        if self._results.are_default:
            return None
        try:
            return self._results.of(function).format()
        except ConfigurationError as error:
            name = function_name(function)
            raise ConfigurationError(
                *(f"cached {name}: {each}" for each in error.faults)
            ) from error


class AsyncDecorator(Decorator):
    """The decorator that `client.cached(…)` returns for coroutine functions."""

    __slots__ = ()

    @overload  # type: ignore[override]  # its functions are awaited
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self) -> NoReturn: ...
    def __call__(self, function: Any = NO_FUNCTION) -> Any:
        """Return the cached function; raise `ConfigurationError` if it cannot be cached."""
        plain = function_to_cache(function, self._key_spec)
        if not inspect.iscoroutinefunction(plain):
            raise ConfigurationError(f"cached {function_name(plain)}: {why_not_awaitable(plain)}")
        return bind_as(function, AsyncCachedFunction(self._cache(plain)))


class ManyDecorator(Decorator):
    """The decorator that `client.cached_many(…)` returns for functions of many items."""

    __slots__ = ()

    cache_type = ManyCache


class AsyncManyDecorator(AsyncDecorator):
    """The decorator that `client.cached_many(…)` returns for coroutine functions of many items."""

    __slots__ = ()

    cache_type = ManyCache
