"""How a client is made from settings, and what it knows without asking a node."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, Self, TypeVar, cast

from shardcache.backends.base import AsyncBackend, Backend, BackendFactory, BackendOptions
from shardcache.backends.locking import ProcessLock
from shardcache.clients.function_cache import CacheContext
from shardcache.clients.key_builder import PrefixRegistry
from shardcache.clients.recomputes import RecomputeLog
from shardcache.clients.sharing import prober_of
from shardcache.clients.swallowed import SwallowedErrors
from shardcache.core.cache_policy import (
    CACHED_OPTIONS,
    DIRECT_OPTIONS,
    CachedTTL,
    CachePolicy,
    PolicyOptions,
    Span,
    check_options,
    resolve_ttl,
)
from shardcache.core.codecs import Codec, CodecFactory, Json, Raw
from shardcache.core.events import Observers, TopologyChanged
from shardcache.core.keys import KeySpace
from shardcache.core.lifetimes import DEFAULT, Default
from shardcache.core.placement.nodes import MEMORY, Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.core.placement.url_warnings import url_warnings
from shardcache.core.secrecy import takes_secrets
from shardcache.core.timeouts import TimeoutPolicy
from shardcache.core.values.envelopes import MAX_VERSIONS
from shardcache.core.values.other_clients import OtherClients, largest_value
from shardcache.core.values.payloads import payloads_of
from shardcache.errors import ClientClosedError, ClientCopyError, ConfigurationError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.members import Member
from shardcache.operations.cluster.prober import Prober
from shardcache.operations.cluster.routing import Key
from shardcache.operations.invalidation.clearing import ClearableCluster
from shardcache.operations.invalidation.generations import Generations
from shardcache.operations.keys import admin
from shardcache.operations.keys.admin import Counters
from shardcache.operations.port import IO
from shardcache.operations.recompute.protection import Protection
from shardcache.plugin.manager import Plugins, load
from shardcache.settings import Settings, parse_options

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

BackendT = TypeVar("BackendT", bound=Backend | AsyncBackend)

FEW_NODES: Final = 3

log = logging.getLogger("shardcache")


class ClientBase(ABC, Generic[BackendT]):
    """What both clients share: how they are made, and what they answer from memory."""

    @takes_secrets
    def __init__(  # noqa: PLR0913 - each is a setting of api.md, by keyword
        self,
        nodes: str | Node | Iterable[str | Node],
        *,
        strategy: str | Strategy = "rendezvous",
        codec: str | Codec = "msgpack",
        secret: str | bytes | Sequence[str | bytes] | None = None,
        read_unsigned: bool = False,
        read_compressed: bool = False,
        namespace: str = "",
        default_ttl: float | timedelta | None = None,
        timeout: float | timedelta | TimeoutPolicy = 0.5,
        on_error: Literal["miss", "raise"] = "miss",
        failover: Literal["miss"] = "miss",
        pool_size: int = 32,
        clearable: bool = False,
        lock_nodes: str | Node | Iterable[str | Node] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        observers: Iterable[object] = (),
    ) -> None:
        """Make a client of `nodes`; connects to nothing before its first call.

        `nodes` are URLs or `Node`s, whose order matters only to strategies that say so. `strategy`
        and `codec` are registered names, with options as in `ketama:profile=twemproxy`, or objects;
        `secret` signs what is stored, whole numbers excepted, and nothing else is read then: text or
        bytes, at least 16 of them, or several, of which the first signs. `read_unsigned` reads what
        other clients wrote on memcached all the same, pickles included, which run code: whoever can
        write to the cache can plant one. `read_compressed` inflates what they compressed.
        `namespace` is put before every key.
        `default_ttl` is in seconds; `None` means no expiry. `timeout` is one deadline, in seconds,
        for a whole call, whatever it fans out to. `on_error="miss"` reads a failing node as a miss
        and reports its writes as `False`; `"raise"` lets its `NodeError` reach the caller.
        `pool_size` bounds blocking connections per node. `clearable` lets `clear()` empty the
        namespace: the names of its keys carry a generation then, so that clients with and without
        it share no value. `lock_nodes` are nodes for locks alone; without them locks are kept on the
        cache nodes. `ssl_context` is how all nodes with TLS are verified and spoken to, in place of the
        options of their URLs. `observers` receive events.

        Raise `ConfigurationError` listing every fault found in all of these, and in a process whose
        sockets eventlet has replaced.
        """
        settings = Settings.of(
            nodes=nodes,
            strategy=strategy if isinstance(strategy, str) else strategy.name,
            codec=codec if isinstance(codec, str) else codec.name,
            secret=secret,
            read_unsigned=read_unsigned,
            read_compressed=read_compressed,
            namespace=namespace,
            default_ttl=default_ttl,
            timeout=timeout,
            on_error=on_error,
            failover=failover,
            pool_size=pool_size,
            clearable=clearable,
            lock_nodes=lock_nodes,
            ssl_context=ssl_context,
        )
        _refuse_eventlet()
        plugins = load()
        self._plugins = plugins
        self._settings = settings
        made_codec = _codec(plugins, codec, settings)
        self._options = BackendOptions(
            pool_size=settings.pool_size,
            call_timeout=settings.timeout.call,
            connect_timeout=settings.timeout.connect_seconds,
            ssl_context=ssl_context,
            bare_bytes=isinstance(made_codec, Raw) and settings.secret is None,
            bare_json=isinstance(made_codec, Json) and settings.secret is None,
        )
        self._changing = ProcessLock()  # whatever interrupts a change may change or close it, too
        topology = Topology(settings.nodes, _strategy(plugins, strategy))
        to_notify = Observers((*observers, *plugins.observers(settings)))
        io = self._make_io()
        ejector = self._make_ejector(prober_of(self._options), to_notify, weakref.ref(self))
        weakref.finalize(self, ejector.stop).atexit = False
        swallowed = SwallowedErrors()
        self._few_told = False
        self._payloads = payloads_of(
            made_codec,
            settings.secret or (),
            io.wall,
            OtherClients(unsigned=settings.read_unsigned, compressed=settings.read_compressed),
        )
        keys = KeySpace(settings.namespace)
        generations = Generations(keys)
        self._caches = CacheContext(lambda: self._cluster, Protection(RecomputeLog()), generations)
        self._prefixes = PrefixRegistry()
        kind = partial(ClearableCluster, generations=generations) if settings.clearable else Cluster
        self._cluster: Cluster = kind(
            io=io,
            topology=topology,
            members=self._members(topology),
            keys=keys,
            payloads=self._payloads,
            timeout=settings.timeout.call,
            default_ttl=settings.default_ttl,
            on_error=settings.on_error,
            observers=to_notify,
            ejector=ejector,
            note_swallowed=swallowed.note,
            note_refused=swallowed.note_refused,
        )
        if settings.lock_nodes is not None:
            locks = Topology(settings.lock_nodes, topology.strategy)
            self._cluster.locks = self._cluster.with_nodes(locks, self._members(locks))
        if ssl_context is not None:
            for caution in _unverified(ssl_context):
                log.warning("ssl_context: %s", caution)
        for member in self._cluster.known.values():
            ejector.add(member, self._identity(member.node))

    @classmethod
    @takes_secrets
    def from_url(cls, url: str, *, observers: Iterable[object] = ()) -> Self:
        """Make a client from one URL: hosts separated by commas, settings in its query.

        >>> from shardcache import Client
        >>> Client.from_url("memory://a,b,c?strategy=ketama&namespace=shop")
        <Client [3 nodes] ketama>
        """
        return cls.from_settings(Settings.from_url(url), observers=observers)

    @classmethod
    @takes_secrets
    def from_env(cls, default: str | None = None, *, observers: Iterable[object] = ()) -> Self:
        """Make a client from `SHARDCACHE_URL` and the other variables of the settings page.

        When neither it nor `SHARDCACHE_CONFIG` is set, `default` is the URL: `memory://a,b,c` where
        the memory of each process is meant. Without one raise `ConfigurationError`, which names the
        variables.
        """
        return cls.from_settings(Settings.from_env(os.environ, default), observers=observers)

    @classmethod
    @takes_secrets
    def from_settings(cls, settings: Settings, *, observers: Iterable[object] = ()) -> Self:
        """Make a client from a `Settings` value, such as `Settings.load("shardcache.toml")`."""
        return cls(
            settings.nodes,
            strategy=settings.strategy,
            codec=settings.codec,
            secret=settings.secret,
            read_unsigned=settings.read_unsigned,
            read_compressed=settings.read_compressed,
            namespace=settings.namespace,
            default_ttl=settings.default_ttl,
            timeout=settings.timeout,
            on_error=settings.on_error,
            failover=settings.failover,
            pool_size=settings.pool_size,
            clearable=settings.clearable,
            lock_nodes=settings.lock_nodes,
            ssl_context=settings.ssl_context,
            observers=observers,
        )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes of this client."""
        return self._cluster.topology.nodes

    @property
    def topology(self) -> Topology:
        """Return the nodes with their strategy and placement, as one immutable value."""
        return self._cluster.topology

    @property
    def fingerprint(self) -> str:
        """Return 32 hex digits; clients of equal fingerprints place every key equally."""
        return self._cluster.topology.fingerprint

    @property
    def observer_errors(self) -> int:
        """Return how many times an observer of this client raised; such errors reach no caller."""
        return self._cluster.observers.errors

    @property
    def ejected(self) -> tuple[Node, ...]:
        """Return the nodes that are not asked for now, because they failed; those for locks too."""
        members = self._cluster.known.values()
        return tuple(member.node for member in members if member.health.ejected)

    def counters(self) -> Counters:
        """Return this client's counters by node name: those of `stats()`, without asking any node.

        It takes microseconds, and so suits a request or a metrics endpoint. `.protection` has the
        counters of the values that were computed through this client, `.circuits` by node whether it
        is asked (`closed`) or ejected (`open`, `probing`).
        """
        return admin.counters(self._cluster, self._caches.protection.counters.counts)

    def node_for(self, key: Key) -> Node:
        """Return the node that holds `key`."""
        return self._cluster.topology.owner(self.hashed(key))

    def nodes_for(self, key: Key, count: int) -> Sequence[Node]:
        """Return up to `count` distinct nodes for `key` in order of preference, its owner first."""
        return self._cluster.topology.preference(self.hashed(key), index(count))

    def hashed(self, key: Key) -> bytes:
        """Return the bytes of `key` that the strategy hashes, for asking `topology` directly."""
        return self._cluster.hashed(key)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: two clients would share connections, and close them."""
        kind = type(self).__name__
        raise ClientCopyError(
            f"{kind} cannot be copied or pickled: share it within this process, and in another make "
            f"one with {kind}.from_settings(settings), for Settings can be pickled"
        )

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__} [closed]>"
        topology = self._cluster.topology
        count = len(topology.nodes)
        word = "node" if count == 1 else "nodes"
        out = f", {len(self.ejected)} ejected" if self.ejected else ""
        return f"<{type(self).__name__} [{count} {word}{out}] {topology.strategy.name}>"

    @abstractmethod
    def _make_io(self) -> IO[BackendT]:
        """Give the port through which this client's operations touch the world."""

    @abstractmethod
    def _make_ejector(
        self, prober: Prober, notified: Observers, client: Callable[[], object]
    ) -> Ejector:
        """Return what ejects this client's nodes, and has them probed by `prober`."""

    @abstractmethod
    def _make_backend(self, factory: BackendFactory, node: Node) -> BackendT:
        """Give the backend of this client's kind for a node."""

    def _direct_policy(self, ttl: CachedTTL | Default, terms: PolicyOptions) -> CachePolicy:
        """Return the terms of `get_or_set`."""
        return self._policy(ttl, check_options(terms, "get_or_set", *DIRECT_OPTIONS))

    def _policy(self, ttl: CachedTTL | Default, terms: PolicyOptions) -> CachePolicy:
        """Give the terms on which a computed value is kept."""
        lifetime = self._cluster.default_ttl if isinstance(ttl, Default) else ttl
        policy = CachePolicy(ttl=lifetime, **terms)
        if policy.quorum:
            self._advise_on_locks()
        return policy

    def _cached_policy(
        self, seconds: Span | Default | None, ttl: CachedTTL | Default, terms: PolicyOptions
    ) -> CachePolicy:
        """Return the terms of a cached function, which must have a ttl, or the client a default."""
        check_options(terms, "cached", *CACHED_OPTIONS)
        given = resolve_ttl(seconds, ttl, "client.cached")
        if given is DEFAULT and self._cluster.default_ttl is None:
            raise ConfigurationError(
                "cached: there is no ttl, and the client has no default_ttl; write"
                " @client.cached(ttl=…) in seconds, or ttl=None for no expiry"
            )
        return self._policy(given, terms)

    def _advise_on_locks(self) -> None:
        """Say once in the log when there are too few nodes for a lock to survive one of them."""
        nodes = len(self._cluster.locking.members)
        if nodes < FEW_NODES and not self._few_told:
            self._few_told = True
            log.warning("a lock over %d node(s) is gone with one of them; use three or more", nodes)

    def _members(self, topology: Topology) -> dict[str, Member]:
        return {node.name: self._member(node) for node in topology.nodes}

    def _member(self, node: Node) -> Member:
        factory = self._plugins.backends[node.address.scheme]
        member = Member(node, self._make_backend(factory, node))
        others = self._payloads.others  # what a node may hold is what may be read of it
        others.largest = max(others.largest, largest_value(node.address.options))
        for caution in url_warnings(node):
            log.warning("node %s: %s", node.name, caution)
        return member

    def _identity(self, node: Node) -> Hashable:
        """Return what clients of this process must have in common to share a node's health.

        That is its whole address, with login and TLS options, and the TLS context. An embedded node is
        its client's own.
        """
        address = node.address
        return None if address.scheme == MEMORY else (address, self._options.ssl_context)

    def _changed(
        self, decide: Callable[[Topology], Topology]
    ) -> tuple[TopologyChange, list[BackendT]]:
        """Swap the topology for what `decide` makes of it; give the change, and who retires.

        Calls in flight keep the cluster they began with, and its backends serve them to the end.
        """
        with self._changing.own():
            while True:
                cluster = self._cluster
                topology = decide(cluster.topology)
                members = {node.name: self._kept(cluster.members, node) for node in topology.nodes}
                changed = cluster.with_nodes(topology, members)
                kept = set(members.values())
                for member in kept.difference(cluster.members.values()):
                    cluster.ejector.add(member, self._identity(member.node))
                if self._cluster is cluster:  # no finalizer has changed it in between
                    self._cluster = changed
                    break
            cluster.ejector.keep(changed.known.values())
        retired = [member for member in cluster.members.values() if member not in kept]
        return TopologyChange(cluster.topology, topology), [member.backend for member in retired]

    def _kept(self, members: Mapping[str, Member], node: Node) -> Member:
        """Give the node's member, the one it has if its address is the same."""
        member = members.get(node.name)
        if member is None or member.node.url != node.url:
            return self._member(node)
        member.node = node
        return member

    def _announce(self, change: TopologyChange) -> None:
        observers = self._cluster.observers
        if observers:
            observers.notify(TopologyChanged(change))
        self._plugins.topology_changed(change)

    @property
    def _closed(self) -> bool:
        return isinstance(self._cluster, _Closed)

    def _retire_all(self) -> list[BackendT]:
        """Refuse all further calls; give every backend, to be closed. None the second time."""
        closed = cast("Cluster", _Closed(type(self).__name__))
        with self._changing.own():
            cluster, self._cluster = self._cluster, closed  # nothing comes in between
        if isinstance(cluster, _Closed):
            return []
        cluster.ejector.stop()
        clusters = (cluster, cluster.locks)
        members = [member for each in clusters if each for member in each.members.values()]
        return [member.backend for member in members]


def cluster_of(client: ClientBase[Any]) -> Cluster:
    """Give what the operations of a client work on now."""
    return client._cluster  # noqa: SLF001 - it is no part of what a client offers its users


def caches_of(client: ClientBase[Any]) -> CacheContext:
    """Return what the cached functions of a client have in common."""
    return client._caches  # noqa: SLF001 - as above


def given_tags(tags: str | bytes | Sequence[Key]) -> Sequence[Key]:
    """Return the tags that `get_or_set` was given; one text stands for one.

    Raise `ValueError` for more than an envelope takes.
    """
    given = (tags,) if isinstance(tags, (str, bytes)) else tuple(tags)
    if len(given) > MAX_VERSIONS:
        raise ValueError(f"get_or_set: {len(given)} tags, and there may be {MAX_VERSIONS}")
    return given


def advise_on_locks(client: ClientBase[Any]) -> None:
    """Say once in the log when a client has too few nodes for a lock to survive one of them."""
    client._advise_on_locks()  # noqa: SLF001 - as above


class _Closed:
    """Stands where the cluster of a closed client was: whatever is asked of it raises."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:  # there is nothing to give
        raise ClientClosedError(f"this {self._kind} is closed")


def _unverified(context: ssl.SSLContext) -> Iterator[str]:
    """Return what a TLS context does not verify; as `cautions` of a URL's options."""
    if not context.verify_mode:  # `ssl.CERT_NONE`
        yield "verify_mode is CERT_NONE: any server is taken for a node, whatever its certificate says"
    elif not context.check_hostname:
        yield (
            "check_hostname is false: a server with the certificate of any other name is taken for a"
            " node"
        )


def _refuse_eventlet() -> None:
    """Raise `ConfigurationError` where eventlet has taken away what calls wait with, `select.poll`."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("select", "socket"))):
        raise ConfigurationError(
            "eventlet.monkey_patch() has replaced the sockets of this process, and shardcache does not"
            " work with those; use gevent, threads or asyncio (gunicorn -k gevent, or -k gthread)"
        )


def _strategy(plugins: Plugins, choice: str | Strategy) -> Strategy:
    if not isinstance(choice, str):
        return choice
    name, options = parse_options(choice)
    return plugins.strategies[name](**options)


def _codec(plugins: Plugins, choice: str | Codec, settings: Settings) -> Codec:
    if not isinstance(choice, str):
        return choice
    name, options = parse_options(choice)
    factory = plugins.codecs[name]
    if settings.secret is not None and _takes_secret(factory):
        return factory(secret=settings.secret, **options)
    return factory(**options)


def _takes_secret(factory: CodecFactory) -> bool:
    return "secret" in inspect.signature(factory).parameters
