"""Which callables can be cached, and how a cached one is bound to its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial, partialmethod
from types import FunctionType, ModuleType
from typing import Any, Final

from shardcache.clients.key_builder import KeySpec
from shardcache.core.cache_policy import describe_function
from shardcache.errors import ConfigurationError

_LIKE_PROPERTIES: Final = (cached_property, partialmethod, property)


class BoundToClass(classmethod):  # type: ignore[type-arg]  # it has no parameters at run time
    """A cached class method."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind it to the class: Python 3.13 would return a plain method, without `get` and the rest."""
        function: Any = self.__func__
        return function.__get__(type(instance) if owner is None else owner)


# Stands for the function where a decorator was called without one.
NO_FUNCTION: Final[Any] = object()


def function_to_cache(function: Any, key_spec: KeySpec) -> Callable[..., Any]:
    """Return the function to cache; raise `ConfigurationError` if there is none.

    A callable without a name, such as a `functools.partial`, needs a namespace; the function that
    calls it is returned.
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
            f"cached: {describe_function(function)} is not a function; write @client.cached(ttl=…) below it,"
            " above the function"
        )
    if not callable(plain) or isinstance(plain, type):
        raise ConfigurationError(
            f"cached: {describe_function(plain)} is not a function; write @client.cached(ttl=…) above one"
        )
    if _is_bound(innermost):
        raise ConfigurationError(
            f"cached {describe_function(innermost)}: it is bound to one object, and keys could not tell it from"
            " another's; decorate the method in its class"
        )
    if any(map(_generates, (plain, type(plain).__call__))):
        raise ConfigurationError(
            f"cached {describe_function(innermost)}: what a generator yields cannot be served twice; return a"
            " list"
        )
    return plain if _has_name(plain) else _with_name(plain, innermost, key_spec)


def _innermost(function: Any) -> Any:
    """Return the function that a `partial` calls in the end."""
    while isinstance(function, partial):
        function = function.func
    return function


def _is_bound(function: Any) -> bool:
    """Return whether a function is bound to one object, which may be built in, or to one class."""
    owner = getattr(function, "__self__", None)
    return inspect.isroutine(function) and owner is not None and not isinstance(owner, ModuleType)


def _generates(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _has_name(function: Any) -> bool:
    """Return whether a function has a module and a name; built-in ones may lack them."""
    if isinstance(function, FunctionType):
        return True
    names = (getattr(function, name, None) for name in ("__module__", "__qualname__"))
    return inspect.isroutine(function) and all(isinstance(name, str) for name in names)


def _with_name(function: Any, innermost: Any, key_spec: KeySpec) -> Callable[..., Any]:
    """Return a function that calls `function`, with the name of the innermost one."""
    if not key_spec.namespace:
        raise ConfigurationError(
            f"cached: {describe_function(function)} has no module and name, which would"
            " tell its values from those of another; give namespace=…"
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
    if isinstance(function, partial):  # without attributes that `update_wrapper` may have set
        function = partial(function.func, *function.args, **function.keywords)
    vars(named)["__wrapped__"] = function
    with suppress(ValueError):  # not every built-in has one
        vars(named)["__signature__"] = inspect.signature(function)
    return named


def bind_as(function: object, cached: Any) -> Any:
    """Return a cached function as a class method or a static method, if `function` is one."""
    if isinstance(function, classmethod):
        return BoundToClass(cached)
    return staticmethod(cached) if isinstance(function, staticmethod) else cached


def why_not_awaitable(function: Callable[..., Any]) -> str:
    """Return why an asyncio client cannot cache a function that is not an `async def`."""
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        return (
            "a plain def that wraps an async def cannot be awaited; make the wrapper an async def"
        )
    return "a plain def needs a blocking Client"
