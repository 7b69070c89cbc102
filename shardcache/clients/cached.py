"""A function whose values are cached, for both worlds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import update_wrapper
from types import FunctionType, MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    NoReturn,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from shardcache.clients.binding import NO_FUNCTION, bind_as, unwrapped, why_not_awaited
from shardcache.clients.function_cache import Args, CacheContext, CacheInfo, FunctionCache, Kwargs
from shardcache.clients.key_builder import KeyBuilder, KeySpec, PrefixRegistry, function_name
from shardcache.core.cache_policy import CachePolicy
from shardcache.errors import ConfigurationError
from shardcache.operations.port import run

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Q = ParamSpec("Q")

ValueOf: TypeAlias = Callable[[Args, Kwargs], Coroutine[Any, Any, Any]]

# What functions have beside what `functools.update_wrapper` copies.
_OF_FUNCTIONS: Final = ("__closure__", "__code__", "__defaults__", "__globals__", "__kwdefaults__")

set_slot = object.__setattr__


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
        return bind_as(function, CachedFunction(self._cache(plain)))

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
            raise ConfigurationError(f"cached {function_name(plain)}: {why_not_awaited(plain)}")
        return bind_as(function, AsyncCachedFunction(self._cache(plain)))
