"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, TypeVar, Unpack, overload

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.clients.base import ClientBase
from shardcache.clients.construction import (
    asyncio_backends,
    blocking_backends,
    lock_options,
    lock_provider_factory,
)
from shardcache.clients.locks import AsyncLock, lock_policy
from shardcache.clients.membership import changed_topology, warm_seconds
from shardcache.clients.results import CodecChoice, Returns, item_type
from shardcache.clients.tagging import DirectTagChoice, TagChoice, direct_tags
from shardcache.core.cache_policy import (
    CachedTTL,
    CachePolicy,
    PolicyOptions,
    Span,
    not_a_factory,
)
from shardcache.core.commands import When
from shardcache.core.events import Observers
from shardcache.core.leases import OnLost, WaitStrategy
from shardcache.core.lifetimes import DEFAULT, TTL, Default, Keep
from shardcache.core.lock_providers import LockProvider
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.errors import NodeError
from shardcache.io.asyncio import AsyncIO
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Prober
from shardcache.operations.cluster.routing import Key
from shardcache.operations.invalidation import clearing
from shardcache.operations.invalidation import tags as tagging
from shardcache.operations.keys import admin, ages, counters, many, single, straight
from shardcache.operations.keys.admin import Stats
from shardcache.operations.locks.held import close_provider
from shardcache.operations.recompute import cached_value
from shardcache.operations.recompute.request import Request
from shardcache.plugin.manager import Plugins
from shardcache.settings import Settings, node_list, parse_node

if TYPE_CHECKING:  # loaded at the first use of the methods that import them
    from shardcache.clients.cached import AsyncDecorator, AsyncManyDecorator
    from shardcache.clients.key_builder import KeyChoice
    from shardcache.operations.keys.checking import NodeCheck

T = TypeVar("T")
K = TypeVar("K", bound=Key)

# Values and defaults are the caller's own objects, hence `Any`.


class AsyncClient(ClientBase[AsyncBackend]):
    """One key space over many cache nodes, for tasks that await. Safe between tasks and loops.

    `Client` is its twin, with the same calls, results and errors.

    >>> import asyncio
    >>> async def main() -> str:
    ...     async with AsyncClient("memory://a,b,c") as client:
    ...         await client.set("greeting", "hello", ttl=60)
    ...         return await client.get("greeting")
    >>> asyncio.run(main())
    'hello'
    """

    async def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`, or `default`; a stored `None` is a hit."""
        cluster = self._cluster
        if cluster.straight:
            return await straight.get_async(cluster, key, default)
        return await single.get(cluster, key, default)

    async def get_many(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """Return the keys found with their values, in no particular order; all nodes are asked at once.

        The keys are the caller's own objects. Keys of a node that failed are absent; with
        `on_error="raise"` a `PartialFailureError` has `.found` and `.failed`.
        """
        return await many.get_many(self._cluster, keys)

    async def set(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` for `ttl` seconds; return whether it was stored.

        A `ttl` of `None` means no expiry, and zero or less deletes the key; it defaults to
        `default_ttl`. Raise `EncodeError` for a value that the codec cannot store.
        """
        return await single.store(self._cluster, key, value, ttl, When.ALWAYS)

    async def set_many(self, mapping: Mapping[Key, Any], ttl: TTL = DEFAULT) -> list[Key]:
        """Store every item for `ttl` seconds; return the keys that could not be stored.

        With `on_error="raise"`, raise `PartialFailureError` if a node failed: its `.succeeded` and
        `.failed` hold the keys.
        """
        return await many.set_many(self._cluster, mapping, ttl)

    async def add(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` if the key is missing; return whether it was stored."""
        return await single.store(self._cluster, key, value, ttl, When.ABSENT)

    async def replace(self, key: Key, value: Any, ttl: TTL = DEFAULT) -> bool:
        """Store `value` if the key exists; return whether it was stored."""
        return await single.store(self._cluster, key, value, ttl, When.PRESENT)

    async def delete(self, key: Key) -> bool:
        """Delete `key`; return whether it existed."""
        return await single.delete(self._cluster, key)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Delete every key, all nodes at once; return how many existed.

        With `on_error="raise"`, raise `PartialFailureError` if a node failed: its `.succeeded` and
        `.failed` hold the keys.
        """
        return await many.delete_many(self._cluster, keys)

    async def touch(self, key: Key, ttl: TTL) -> bool:
        """Set the expiry of `key` to `ttl` seconds from now; return whether it existed."""
        return await single.touch(self._cluster, key, ttl)

    async def exists(self, key: Key) -> bool:
        """Return whether `get` would find `key`; its value is not sent, unless there is a `secret`.

        A value that cannot be decoded exists, unless there is a `secret`.
        """
        return await ages.exists(self._cluster, key)

    async def ttl(self, key: Key) -> float | None:
        """Return for how many seconds `get` will find `key`; `None` if it is missing.

        It is infinite (`math.inf`) without an expiry. A value of a cached function has the time until its
        node drops it, with that for which it may be served stale. memcached counts whole seconds; nodes of
        `pymemcache` raise `UnsupportedError`.
        """
        return await ages.ttl(self._cluster, key)

    async def incr(
        self,
        key: Key,
        delta: SupportsIndex = 1,
        initial: SupportsIndex | None = None,
        ttl: TTL = DEFAULT,
        *,
        floor: Literal[0] | None = 0,
    ) -> int | None:
        """Add `delta` to a counter; return its new value.

        A missing counter is created with `initial` and `ttl`; without `initial` the result is `None`. An
        existing counter keeps its expiry. Raise `NotACounterError` when the value is not a whole number
        from 0 to 2**63 - 1, or would exceed that.

        With `floor=None` a counter may be negative, from -2**63 on. memcached cannot count below zero: there
        this client reads the number and stores the next one, again if another client was faster. After a
        hundred times, or at its `timeout`, that is a failure of the node: `None`, or a `NodeRefusedError`
        with `on_error="raise"`. Nodes of `pymemcache` only count up from zero, and raise
        `UnsupportedError` otherwise.
        """
        return await counters.incr(self._cluster, key, delta, initial, ttl, floor)

    async def decr(
        self,
        key: Key,
        delta: SupportsIndex = 1,
        initial: SupportsIndex | None = None,
        ttl: TTL = DEFAULT,
        *,
        floor: Literal[0] | None = 0,
    ) -> int | None:
        """Subtract `delta` from a counter; return its new value. See `incr`.

        It stops at 0, unless `floor` is `None`.
        """
        return await counters.decr(self._cluster, key, delta, initial, ttl, floor)

    async def gets(self, key: Key, default: Any = None) -> tuple[Any, Hashable | None]:
        """Return `(value, token)`, with a token for `cas`; `(default, None)` for a missing key."""
        return await single.gets(self._cluster, key, default)

    async def cas(
        self, key: Key, value: Any, token: Hashable, ttl: TTL | Keep = DEFAULT
    ) -> bool | None:
        """Store `value` if the key has not changed since `gets` returned `token`.

        Return `True` when it was stored, `False` when the key was changed meanwhile, `None` when it is
        missing. On Redis, values of the codec `raw`, and values that other programs stored, are compared
        by value.

        With `ttl=KEEP` the value expires when the one that it replaces would have; nodes of `pymemcache`
        raise `UnsupportedError`. On memcached that takes another read, and a `touch` of another client
        between the two is lost.
        """
        return await single.cas(self._cluster, key, value, token, ttl)

    @overload
    async def get_or_set(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T]],
        ttl: CachedTTL | Default = DEFAULT,
        *,
        tags: DirectTagChoice = (),
        codec: CodecChoice | None = None,
        returns: Returns = None,
        **options: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    async def get_or_set(
        self,
        key: Key,
        factory: Callable[[], Awaitable[T] | T],
        ttl: CachedTTL | Default = DEFAULT,
        *,
        tags: DirectTagChoice = (),
        codec: CodecChoice | None = None,
        returns: Returns = None,
        **options: Unpack[PolicyOptions],
    ) -> T: ...
    async def get_or_set(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
        self,
        key: Key,
        factory: Callable[[], Awaitable[T] | T],
        ttl: CachedTTL | Default = DEFAULT,
        *,
        tags: DirectTagChoice = (),
        codec: CodecChoice | None = None,
        returns: Returns = None,
        **options: Unpack[PolicyOptions],
    ) -> T:
        """Return the value of `key`; if it is missing, recompute it with `factory()` once for all callers.

        `ttl` defaults to `default_ttl`; 0 stores nothing. `tags` are names, or functions of the result that
        return names: see `invalidate_tag`. `options` are the fields of `CachePolicy`, such as `lock=True`.
        `codec` and `returns` are those of `cached`. Each caller gets its own value, never the same object.
        Raise `UncacheableResultError` for a value that cannot be stored, unless
        `on_uncacheable="return"`.
        """
        if not callable(factory):
            raise not_a_factory("get_or_set", factory)
        policy = self._direct_policy("get_or_set", ttl, options)
        protection = self._protection
        names, result_tags = direct_tags(tags)
        payloads = self._result_payloads.direct(codec, returns, factory)
        value: T = await cached_value.get(
            Request(
                self._cluster,
                key,
                factory,
                policy,
                protection,
                protection.direct,
                names,
                result_tags,
                payloads,
            )
        )
        return value

    async def get_or_set_many(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
        self,
        keys: Iterable[K],
        factory: Callable[[list[K]], Awaitable[Mapping[K, T]] | Mapping[K, T]],
        ttl: CachedTTL | Default = DEFAULT,
        *,
        tags: DirectTagChoice = (),
        codec: CodecChoice | None = None,
        returns: Returns = None,
        **options: Unpack[PolicyOptions],
    ) -> dict[K, T]:
        """Return the values of many keys; recompute the missing ones with one call of `factory`.

        `factory` takes a list of keys and returns a mapping from key to value. Of all callers that miss a
        key one recomputes it, as with `get_or_set`; this caller's factory gets the keys that it is to
        recompute, and then it waits for the others. A key that the factory leaves out is absent from the
        result, for all who wait for it, and nothing is stored.

        One fan-out reads, one claims what is missing, and one stores. `options` are those of `get_or_set`
        without `lock=True` and `cache_errors`; `lock="shard"` lets one process recompute each key. `returns`
        is the type of one value. Raise what the factory raises, for the callers that wait for its keys as
        well.
        """
        from shardcache.operations.recompute import many as many_values  # noqa: PLC0415 - see the imports

        if not callable(factory):
            raise not_a_factory("get_or_set_many", factory)
        make_request = self._item_requests(ttl, tags, codec, returns, options)
        return await many_values.get(self._cluster, keys, make_request, factory)

    def cached(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
        self,
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
    ) -> AsyncDecorator:
        """Cache the results of a function by its arguments: `@client.cached(ttl=60, lock=True)`.

        `ttl` defaults to the client's `default_ttl`; seconds may be given by position, `cached(60)`.
        Raise `ConfigurationError` when there is neither, and when used without parentheses.

        `key` is a template over the arguments (`"user:{user_id}"`) or a function of them, in place
        of the automatic key. `namespace` (by default module and name of the function) and `version` are
        part of every key. `ignore` names arguments left out of it; `typed` tells `1`, `1.0` and `True`
        apart.
        `tags` are templates too, or functions that return names: of the arguments, a mapping by name, or of
        these and the result. See `invalidate_tag`. `options` are the fields of `CachePolicy`; a
        `policy` in place of all of them, and of the ttl, serves many functions.

        `codec` is another codec than the client's: a name, a codec or a value format. `returns` is the type
        of the results, such as `list[User]`, or `True` for the function's return annotation: dataclasses,
        enums, named tuples, typed dicts, attrs classes and Structs come back through msgspec, Pydantic's
        models through Pydantic. Raise `ConfigurationError` for a type that neither handles.
        """
        from shardcache.clients.cached import AsyncDecorator  # noqa: PLC0415 - see the imports
        from shardcache.clients.key_builder import KeySpec  # noqa: PLC0415

        key_spec = KeySpec(
            key=key, namespace=namespace, version=version, tags=tags, ignore=ignore, typed=typed
        )
        context = self._cache_context()
        return AsyncDecorator(
            lambda: context,
            self._cached_policy("cached", policy, seconds, ttl, options),
            key_spec,
            self._namespace.prefixes,
            self._result_payloads.options(codec, returns),
        )

    def cached_many(  # noqa: PLR0913 - options that are not fields of `CachePolicy`
        self,
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
    ) -> AsyncManyDecorator:
        """Cache a function of many items, each item's value by itself: `@client.cached_many(ttl=60)`.

        The function takes a list of items (its first parameter) and returns a mapping from item to
        value. A call returns the values of all items, and the function is called once, with those that
        are missing: see `get_or_set_many`. The items must be hashable.

        The parameters are those of `cached`, where the first parameter stands for one item:
        `key="user:{ids}"`, and `returns` is the type of one value. `get`, `refresh` and `invalidate` of
        the function take items as well.
        """
        from shardcache.clients.cached import AsyncManyDecorator  # noqa: PLC0415 - see the imports
        from shardcache.clients.key_builder import KeySpec  # noqa: PLC0415

        key_spec = KeySpec(
            key=key, namespace=namespace, version=version, tags=tags, ignore=ignore, typed=typed
        )
        context = self._cache_context()
        return AsyncManyDecorator(
            lambda: context,
            self._cached_policy("cached_many", policy, seconds, ttl, options),
            key_spec,
            self._namespace.prefixes,
            self._result_payloads.options(codec, item_type(returns, "cached_many")),
        )

    async def invalidate_tag(self, tag: str | bytes) -> bool:
        """Invalidate every cached value with this tag; return whether the tag's node has confirmed it."""
        return await tagging.invalidate(self._cluster, tag)

    def lock(  # noqa: PLR0913 - the options of a lock
        self,
        name: Key,
        *,
        ttl: float | timedelta = 10.0,
        renew: bool = False,
        max_hold: float | timedelta = 60.0,
        on_lost: OnLost = "raise",
        backoff: WaitStrategy | None = None,
    ) -> AsyncLock:
        """Return a lock over a majority of up to five nodes, or of the service that `locks` of the client names.

        `acquire` or `with` takes it. Nodes keep it for `ttl` seconds. With `renew` it is extended in
        the background until it has been held for `max_hold` seconds. `on_lost` tells whether a `with`
        block that has lost the lock raises `LockLost` at its end or not (`"ignore"`). `backoff` is any
        wait strategy of tenacity, for the pauses between attempts. A lock limits load; it cannot stop a
        process that was paused from going on.
        """
        self._membership.warn_of_few_lock_nodes()
        policy = lock_policy(ttl, max_hold, backoff, renew=renew)
        return AsyncLock(lambda: self._cluster, name, policy, on_lost)

    async def ping(self) -> dict[str, float | NodeError]:
        """Return, by node name, the seconds that a ping took, or the node's error."""
        return await admin.ping(self._cluster)

    async def check(self) -> dict[str, NodeCheck]:
        """Test on each node everything that a client needs; return the findings by node name.

        A node must answer, write, read, compare and set, count, cache functions, lock and delete, and
        its server must be new enough. A node for locks only (`lock` before its name) is tested for locks.
        Whatever `on_error` is, raise `CheckFailedError` when a node fails: it names for each such node
        what is wrong and what to do. Each answer may take as long as `timeout`. The keys of a check are
        deleted at its end; those of an interrupted check expire within ten seconds. A check changes no
        counter, notifies no observer and ejects no node.
        """
        from shardcache.operations.keys import checking  # noqa: PLC0415 - see the imports

        return await checking.check(self._cluster)

    async def stats(self) -> Stats:
        """Return, by node name, the server's figures (or its error) and this client's counters.

        `.protection` has the counters of the values that were recomputed through this client.
        """
        return await admin.stats(self._cluster, self._protection.counters.counts)

    async def clear(self) -> bool:
        """Invalidate every key of this client's namespace in one step; return whether that is in force.

        For clients with `clearable=True`, whose key names carry a generation; other clients raise
        `ConfigurationError`. Values of cached functions are cleared as well; locks are not. Other
        processes notice with their first call after a second. `False` means that too few nodes have
        confirmed it: call it again.
        """
        return await clearing.clear(self._cluster, self._namespace.generations)

    async def flush_all(self) -> bool:
        """Empty every node, for all its users; return whether all did. No other call does this."""
        return await admin.flush_all(self._cluster)

    async def flush_node(self, name: str) -> bool:
        """Empty the node called `name`, for all its users; return whether it did.

        Do so before a node that was away comes back: its values are out of date. The name is one of
        `counters`, such as `gutter b` for a spare node, or `old b` for one that keys move away from.
        Raise `TopologyError`, which lists the known names, if there is no such node.
        """
        return await admin.flush_node(self._cluster, name)

    async def add_node(
        self, node: str | Node, *, warm_for: float | timedelta = 0.0, empty: bool = False
    ) -> TopologyChange:
        """Add a node, as `set_nodes` does; its weight decides which share of the keys moves to it.

        With `empty` it is emptied before, for all its users: what a node holds that was away is old. If
        that fails, its error is raised and no node is added.
        """
        try:
            added = parse_node(node)
        finally:
            del node  # an error must not show its password as a local variable
        if empty:
            await self._membership.empty(added)
        return await self._swap(lambda topology: topology.adding(added), warm_for)

    async def remove_node(self, name: str, *, warm_for: float | timedelta = 0.0) -> TopologyChange:
        """Remove the node called `name`, as `set_nodes` does; stop it after the warm-up."""
        return await self._swap(lambda topology: topology.removing(name), warm_for)

    async def set_nodes(
        self,
        nodes: str | Node | Iterable[str | Node],
        *,
        strategy: str | Strategy | None = None,
        warm_for: float | timedelta = 0.0,
    ) -> TopologyChange:
        """Use exactly these nodes from now on, under the same strategy or another.

        Connections to nodes that stay are kept, and calls in flight finish on the old topology.

        For `warm_for` seconds a key that moved and is missing on its new node is read on its old one, and
        its value is copied with the rest of its ttl. What is written or deleted meanwhile, and for a minute
        after that, is deleted on the old node too. The call takes as long as `timeout` then, unless
        `announce_nodes` has announced these nodes before.
        """
        try:
            listed = node_list(nodes)
        finally:
            del nodes  # an error must not show their passwords as a local variable
        return await self._swap(
            lambda topology: changed_topology(topology, listed, strategy), warm_for
        )

    async def announce_nodes(
        self, nodes: str | Node | Iterable[str | Node], *, strategy: str | Strategy | None = None
    ) -> TopologyChange:
        """Prepare for `set_nodes` with these nodes, which other processes may use from now on.

        Reads and writes stay where they are. What is written or deleted is deleted on the key's next node
        too, until the nodes are set. Return the change to come; observers are not notified of it.
        """
        try:
            listed = node_list(nodes)
        finally:
            del nodes  # as above
        change, retired = self._membership.announce(
            lambda topology: changed_topology(topology, listed, strategy)
        )
        await asyncio.gather(*(backend.aclose() for backend in retired))
        return change

    async def aclose(self) -> None:
        """Close all connections. Idempotent; the client then raises `ClientClosedError`.

        On a view it does nothing.
        """
        if self._is_view:
            return
        retired = self._membership.close(type(self).__name__)
        try:
            await (
                self._io.aclose()
            )  # undoing what is left of locks needs the nodes, and their provider
        finally:
            try:
                await close_provider(self._lock_provider, self._lock_failures.note)
            finally:
                await asyncio.gather(*(backend.aclose() for backend in retired))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _swap(
        self, decide: Callable[[Topology], Topology], warm_for: float | timedelta
    ) -> TopologyChange:
        seconds = warm_seconds(warm_for)
        if seconds:
            await self._membership.prepare(decide)
        change, retired = self._membership.change(decide, seconds)
        self._membership.notify_changed(change)
        await asyncio.gather(*(backend.aclose() for backend in retired))
        return change

    def _announce(self, nodes: tuple[Node, ...]) -> TopologyChange:
        return asyncio.run(self.announce_nodes(nodes))

    def _use_nodes(self, nodes: tuple[Node, ...], warm_for: float) -> TopologyChange:
        return asyncio.run(self.set_nodes(nodes, warm_for=warm_for))

    def _make_io(self) -> AsyncIO:
        self._io = AsyncIO()
        return self._io

    def _make_lock_provider(
        self, plugins: Plugins, settings: Settings, options: BackendOptions
    ) -> LockProvider:
        factory = lock_provider_factory(plugins, settings.locks)
        self._lock_provider = factory.asyncio(settings.locks, lock_options(options))
        return self._lock_provider

    @staticmethod
    def _make_closer(io: AsyncIO) -> Callable[[list[AsyncBackend]], None]:
        def close(backends: list[AsyncBackend]) -> None:
            for backend in backends:
                io.spawn(backend.aclose, "retired node")

        return close

    def _make_ejector(
        self,
        prober: Prober,
        observers: Observers,
        client: Callable[[], object],
        plugins: Plugins,
        options: BackendOptions,
    ) -> Ejector:
        connect = blocking_backends(plugins, options)

        def reach(member: Member) -> Backend:
            return connect(member.node)

        return Ejector(prober, observers, reach, client)

    def _connector(
        self, plugins: Plugins, options: BackendOptions
    ) -> Callable[[Node], AsyncBackend]:
        return asyncio_backends(plugins, options)
