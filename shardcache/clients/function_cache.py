"""The cache of one function: its keys, its policy, its counters."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

from shardcache.clients.key_builder import KeyBuilder, function_name
from shardcache.clients.results import ResultFormat
from shardcache.core.cache_policy import CachePolicy
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.values.entries import CacheEntry
from shardcache.core.values.payloads import Payloads
from shardcache.errors import ConfigurationError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.invalidation import tags
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.blocks import bypassed, entered
from shardcache.operations.recompute.counters import RecomputeCounters
from shardcache.operations.recompute.outcomes import NO_VALUE
from shardcache.operations.recompute.protection import Protection
from shardcache.operations.recompute.request import FunctionRequest, Request

# Arguments are passed on as they come, and descriptors bind whatever they are found on.
Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class CacheInfo(NamedTuple):
    """The counters of one cached function in this process.

    The reference explains each of them under "Counters".
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
    orphaned: int
    errors: int
    swallowed: int
    cache_errors: int
    locks_lost: int
    locks_unavailable: int


class CacheContext(NamedTuple):
    """What the cached functions of one client share.

    `cluster` returns the client's nodes at the start of a call, `payloads` the stored form of results
    of another codec or of a declared type. `disabled` is whether the cache is turned off.
    """

    cluster: Callable[[], Cluster]
    protection: Protection
    generations: Generations
    payloads: Callable[[ResultFormat], Payloads]
    disabled: bool = False


class FunctionCache:
    """The cache of one function, for both clients: its keys, its policy and its counters."""

    decorator: ClassVar[str] = "cached"

    __slots__ = (
        "_context",
        "_defaulted",
        "_keys",
        "_payloads",
        "_results",
        "counters",
        "function",
        "policy",
    )

    def __init__(
        self,
        context: Callable[[], CacheContext],
        function: Callable[..., Any],
        policy: CachePolicy,
        keys: KeyBuilder,
        results: ResultFormat | None = None,
    ) -> None:
        self._context = _with_check(context, keys) if keys.is_anonymous else context
        self.function = function
        self.policy = policy
        self._defaulted = policy  # with the client's default ttl
        self._keys = keys
        self._results = results  # `None`: they are stored as the client's other values
        self._payloads: tuple[CacheContext, Payloads] | None = None
        self.counters = RecomputeCounters(function_name(function))

    def value(self, args: Args, kwargs: Kwargs) -> Coroutine[Any, Any, Any]:
        """Return the cached value; recompute it if it is missing."""
        context = self._context()
        if context.disabled or (entered.get() and bypassed()):
            return self._call(context, args, kwargs)
        request = self._new_request(context, args, kwargs)
        if self._is_current(context, request):  # the usual case, without one more frame
            return cached_value.get(request)
        return self._value_after_look(request, context.generations, args, kwargs)

    async def _value_after_look(
        self, request: Request, generations: Generations, args: Args, kwargs: Kwargs
    ) -> Any:
        """Return the value after a look at the generation, which is due."""
        await self._refresh_generation(request, generations, args, kwargs, reads=True)
        return await cached_value.get(request)

    async def peek(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the cached value, or `None`; recompute nothing."""
        value = await cached_value.peek(
            await self._request(self._context(), args, kwargs, reads=True)
        )
        return None if value is NO_VALUE else value

    async def entry(self, args: Args, kwargs: Kwargs) -> CacheEntry[Any] | None:
        """Return the cached value with its age, or `None`; recompute nothing."""
        return await cached_value.entry(
            await self._request(self._context(), args, kwargs, reads=True)
        )

    async def put(self, value: Any, args: Args, kwargs: Kwargs) -> bool:
        """Store a value."""
        return await cached_value.put(await self._request(self._context(), args, kwargs), value)

    async def refresh(self, args: Args, kwargs: Kwargs) -> Any:
        """Recompute the value and store it."""
        context = self._context()
        if context.disabled:
            return await self._call(context, args, kwargs)
        return await cached_value.refresh(await self._request(context, args, kwargs))

    async def invalidate(self, args: Args, kwargs: Kwargs) -> bool:
        """Remove the value."""
        return await cached_value.invalidate(await self._request(self._context(), args, kwargs))

    async def invalidate_all(self) -> bool:
        """Remove all values."""
        context = self._context()
        if context.disabled:
            return False
        cluster, generations = context.cluster(), context.generations
        return await generations.renew(cluster, generations[self._keys.prefix])

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Invalidate all values with this tag."""
        return await tags.invalidate(self._context().cluster(), tag)

    async def key_for(self, args: Args, kwargs: Kwargs) -> str | bytes:
        """Return the key of a call."""
        return (await self._request(self._context(), args, kwargs)).key

    async def _call(self, context: CacheContext, args: Args, kwargs: Kwargs) -> Any:
        """Call the function, and leave the cache alone."""
        return await context.cluster().io.compute(lambda: self.function(*args, **kwargs))

    async def _request(
        self, context: CacheContext, args: Args, kwargs: Kwargs, *, reads: bool = False
    ) -> Request:
        """Return the request of a call, with a key of the current generation.

        A generation that is due for a look is read from its node, along with the value if it `reads`.
        """
        request = self._new_request(context, args, kwargs)
        if not self._is_current(context, request):
            await self._refresh_generation(request, context.generations, args, kwargs, reads=reads)
        return request

    def _new_request(self, context: CacheContext, args: Args, kwargs: Kwargs) -> Request:
        """Return the request of a call, with a key of the generation that is known."""
        cluster, keys = context.cluster(), self._keys
        policy = self.policy
        if policy.ttl is DEFAULT:
            policy = self._with_default_ttl(cluster)
        request = FunctionRequest(
            cluster,
            keys.key(args, kwargs, context.generations[keys.prefix].name),
            None,
            policy,
            context.protection,
            self.counters,
            keys.tags(args, kwargs) if keys.has_tags else (),
            None,
            None if self._results is None else self._payloads_in(context, self._results),
        )
        request.called, request.args, request.kwargs = self.function, args, kwargs
        if keys.has_result_tags:
            request.result_tags = partial(keys.result_tags, args, kwargs)
        if policy.takes_arguments:
            request.arguments = partial(keys.arguments, args, kwargs)
        return request

    def _is_current(self, context: CacheContext, request: Request) -> bool:
        """Return whether the generation of the request's key need not be looked up."""
        generations = context.generations
        is_known = generations[self._keys.prefix].epoch is generations.epoch
        return context.disabled or (is_known and request.io.now() < generations.due)

    async def _refresh_generation(
        self, request: Request, generations: Generations, args: Args, kwargs: Kwargs, *, reads: bool
    ) -> None:
        """Look up the generation along with the value; rename the request if it has changed."""
        cluster = request.cluster
        generation = generations[self._keys.prefix]
        name = generation.name
        wanted = [generation, generations.cleared] if cluster.clearable else [generation]
        deadline = cluster.deadline()
        asks = request.reads() if reads else []
        replies = await generations.settle(cluster, wanted, asks, deadline)
        if generation.name != name:
            request.rename(self._keys.key(args, kwargs, generation.name))
            replies = None
        if reads:
            if replies is None:  # the value was read under an old name
                replies = await cluster.ask_timed(request.reads(), deadline)
            request.first = request.parse_replies([reply for reply, _ in replies])

    def _payloads_in(self, context: CacheContext, results: ResultFormat) -> Payloads:
        """Return the stored form of the results, created once for each client."""
        known = self._payloads
        if known is None or known[0] is not context:
            known = self._payloads = context, context.payloads(results)
        return known[1]

    def _with_default_ttl(self, cluster: Cluster) -> CachePolicy:
        """Return the policy with the client's `default_ttl`; raise `ConfigurationError` without one."""
        seconds = cluster.default_ttl
        if seconds is None:
            raise ConfigurationError(
                f"{self.decorator} {function_name(self.function)}: there is no ttl, and the default"
                f" client has no default_ttl; write @{self.decorator}(ttl=…) in seconds, or ttl=None"
                " for no expiry"
            )
        policy = self._defaulted
        if policy.ttl != seconds:
            policy = self._defaulted = replace(self.policy, ttl=seconds)
        return policy


def _with_check(
    context: Callable[[], CacheContext], keys: KeyBuilder
) -> Callable[[], CacheContext]:
    """Return `context` with a check that an anonymous function may be cached on the client's nodes."""

    def checked_context() -> CacheContext:
        current = context()
        keys.refuse_if_anonymous(current.cluster())
        return current

    return checked_context
