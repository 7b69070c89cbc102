"""The cache of a function of many items: each item has its own key and value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

from shardcache.clients.function_cache import Args, CacheContext, FunctionCache, Kwargs
from shardcache.clients.key_builder import function_name
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.urls import redact
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.recompute import cached_value, many
from shardcache.operations.recompute.blocks import bypassed, entered
from shardcache.operations.recompute.many import ItemRequest

# Items and values are the caller's own, hence `Any`.


class Items:
    """The items of one call, and the call with others in their place.

    They are the first argument, after `self` or `cls`.
    """

    __slots__ = ("_args", "_kwargs", "_name", "_place", "all")

    def __init__(self, function: Callable[..., Any], args: Args, kwargs: Kwargs) -> None:
        names = list(inspect.signature(function).parameters)
        self._place = 1 if names[:1] in (["self"], ["cls"]) else 0
        self._args, self._kwargs = args, kwargs
        self._name = names[self._place] if len(names) > self._place else ""
        if len(args) <= self._place and self._name not in kwargs:
            raise TypeError(f"{function_name(function)}: the call has no items")
        items = args[self._place] if len(args) > self._place else kwargs[self._name]
        if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
            raise TypeError(f"{function_name(function)}: items must be a list, not {redact(items)}")
        self.all = list(items)

    def replaced_by(self, items: Any) -> tuple[Args, Kwargs]:
        """Return the arguments with another object in place of the items."""
        place = self._place
        if len(self._args) > place:
            return (*self._args[:place], items, *self._args[place + 1 :]), self._kwargs
        return self._args, {**self._kwargs, self._name: items}


class ManyCache(FunctionCache):
    """The cache of a function that takes items, and returns a mapping from item to value."""

    __slots__ = ()

    decorator = "cached_many"

    async def value(self, args: Args, kwargs: Kwargs) -> dict[Any, Any]:
        """Return the value of each item; recompute those that are missing."""
        context, items = self._context(), Items(self.function, args, kwargs)
        if context.disabled or (entered.get() and bypassed()):
            return dict(await self._call(context, args, kwargs))
        await self._refresh_generation_of(context)
        make_request = partial(self._request_for, context, items)
        return await many.get(context.cluster(), items.all, make_request, self._factory_for(items))

    async def peek(self, args: Args, kwargs: Kwargs) -> dict[Any, Any]:
        """Return the cached values; recompute nothing."""
        return await self._each(args, kwargs, cached_value.peek)

    async def refresh(self, args: Args, kwargs: Kwargs) -> dict[Any, Any]:
        """Recompute the value of each item, and store it."""
        context = self._context()
        if context.disabled:
            return dict(await self._call(context, args, kwargs))
        return await self._each(args, kwargs, cached_value.refresh)

    async def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value of each item; return whether there was any."""
        return any((await self._each(args, kwargs, cached_value.invalidate)).values())

    async def put(self, value: Mapping[Any, Any], args: Args, kwargs: Kwargs) -> bool:
        """Store the values of items; return whether all were stored."""

        async def put(request: ItemRequest) -> bool:
            return await cached_value.put(request, value[request.item])

        return all((await self._each(args, kwargs, put)).values())

    async def entry(self, args: Args, kwargs: Kwargs) -> NoReturn:  # noqa: ARG002 - of whatever call
        """Raise `TypeError`: an entry has one value."""
        raise TypeError(f"{function_name(self.function)}: an entry is of one value, not of many")

    async def key_for(self, args: Args, kwargs: Kwargs) -> str | bytes:
        """Return the key of the one item of a call."""
        context, items = self._context(), Items(self.function, args, kwargs)
        if len(items.all) != 1:
            raise TypeError(
                f"{function_name(self.function)}: key_for takes a list of one item, not {len(items.all)}"
            )
        await self._refresh_generation_of(context)
        return self._request_for(context, items, context.cluster(), items.all[0]).key

    async def _each(
        self,
        args: Args,
        kwargs: Kwargs,
        operation: Callable[[ItemRequest], Coroutine[Any, Any, Any]],
    ) -> dict[Any, Any]:
        context, items = self._context(), Items(self.function, args, kwargs)
        await self._refresh_generation_of(context)
        make_request = partial(self._request_for, context, items)
        factory = self._factory_for(items)
        return await many.each(context.cluster(), items.all, make_request, factory, operation)

    def _factory_for(self, items: Items) -> Callable[[list[Any]], Any]:
        def factory(missing: list[Any]) -> Any:
            args, kwargs = items.replaced_by(missing)
            return self.function(*args, **kwargs)

        return factory

    def _request_for(
        self, context: CacheContext, items: Items, cluster: Cluster, item: Any
    ) -> ItemRequest:
        args, kwargs = items.replaced_by(item)
        keys, policy = self._keys, self.policy
        request = ItemRequest(
            cluster,
            keys.key(args, kwargs, context.generations[keys.prefix].name),
            lambda: item,
            self._with_default_ttl(cluster) if policy.ttl is DEFAULT else policy,
            context.protection,
            self.counters,
            keys.tags(args, kwargs),
            payloads=None if self._results is None else self._payloads_in(context, self._results),
        )
        if keys.has_result_tags:
            request.result_tags = lambda result: keys.result_tags(args, kwargs, result)
        request.arguments = lambda: keys.arguments(args, kwargs)
        return request

    async def _refresh_generation_of(self, context: CacheContext) -> None:
        """Look up the generation of the function's values if that is due."""
        cluster, generations = context.cluster(), context.generations
        wanted = [generations[self._keys.prefix]]
        if not (context.disabled or generations.are_current(wanted, cluster.io.now())):
            await generations.settle(cluster, wanted, [], cluster.deadline())
