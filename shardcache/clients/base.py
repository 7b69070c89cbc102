"""What both clients share: construction from settings, and all that needs no call to a node."""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from operator import index
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self

from shardcache.backends.base import BackendOptions
from shardcache.clients.config_follower import LOOK_EVERY, ConfigFollower, Given, config_follower
from shardcache.clients.construction import (
    backend_options,
    build_codec,
    build_failover,
    build_payloads,
    build_strategy,
    cluster_type,
    name_of,
    refuse_eventlet,
    view_cluster,
    view_settings,
    warn_of_disabled,
    warn_of_unverified,
)
from shardcache.clients.membership import BackendT, Membership
from shardcache.clients.namespaces import Namespace
from shardcache.clients.probers import shared_prober
from shardcache.clients.recompute_log import RecomputeLog
from shardcache.clients.result_payloads import ResultPayloads, other_codec
from shardcache.clients.results import CodecChoice, Returns, item_type
from shardcache.clients.services import Service
from shardcache.clients.swallowed_log import LockFailures, SwallowedErrorLog
from shardcache.clients.tagging import DirectTagChoice, direct_tags
from shardcache.core.cache_policy import (
    CachedTTL,
    CachePolicy,
    PolicyOptions,
    Span,
    cached_policy,
    check_options,
    policy_of,
)
from shardcache.core.codecs import Codec, ValueFormat
from shardcache.core.events import ClientCreated, Observers, check_observers
from shardcache.core.lifetimes import DEFAULT, Default
from shardcache.core.lock_providers import LockProvider
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology, TopologyChange
from shardcache.core.secrecy import takes_secrets
from shardcache.core.timeouts import TimeoutPolicy
from shardcache.core.values.other_clients import ReadUnsigned
from shardcache.errors import ClientCopyError, ConfigurationError
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.ejection import Ejector
from shardcache.operations.cluster.failover import StandIn
from shardcache.operations.cluster.prober import Prober
from shardcache.operations.cluster.routing import Key
from shardcache.operations.keys import admin
from shardcache.operations.keys.admin import Counters
from shardcache.operations.port import IO
from shardcache.operations.recompute.protection import Protection
from shardcache.plugin.manager import Plugins, load
from shardcache.settings import (
    REDLOCK,
    Failover,
    Gutter,
    Settings,
    Shadow,
    follows,
    is_disabled,
    names_file,
)

if (
    TYPE_CHECKING
):  # loaded with the first node that speaks TLS, the first shadow and cached function
    import ssl

    from shardcache.clients.function_cache import CacheContext
    from shardcache.clients.shadow import ShadowService
    from shardcache.operations.recompute.many import MakeRequest


class ClientBase(ABC, Generic[BackendT]):
    """What both clients share: construction, and answers that need no call to a node."""

    @takes_secrets
    def __init__(  # noqa: PLR0913 - each is a setting, by keyword
        self,
        nodes: str | Node | Iterable[str | Node],
        *,
        strategy: str | Strategy = "rendezvous",
        codec: CodecChoice = "msgpack",
        secret: str | bytes | Sequence[str | bytes] | None = None,
        read_unsigned: ReadUnsigned = False,
        read_compressed: bool = False,
        namespace: str = "",
        default_ttl: float | timedelta | None = None,
        timeout: float | timedelta | TimeoutPolicy = 0.5,
        on_error: Literal["miss", "raise"] = "miss",
        on_overflow: Literal["warn", "flush"] = "warn",
        failover: Failover = "miss",
        pool_size: int = 32,
        clearable: bool = False,
        locks: str = REDLOCK,
        lock_nodes: str | Node | Iterable[str | Node] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        shadow: Shadow | None = None,
        observers: Iterable[object] = (),
    ) -> None:
        """Create a client of `nodes`; it connects to nothing before its first call.

        `nodes` are URLs or `Node`s; their order matters only to strategies that say so. `strategy` and
        `codec` are registered names, with options as in `ketama:profile=twemproxy`, or objects.
        `secret` signs what is stored, except whole numbers, and then nothing unsigned is read. It is
        text or bytes, at least 16 of them, or several, of which the first signs. `read_unsigned` still
        reads what other clients wrote on memcached, pickles included. Pickles run code: anyone with
        write access to the cache can plant one. `read_unsigned="plain"` excludes pickles.
        `read_compressed` inflates what other clients compressed. `namespace` is put before every key.
        `default_ttl` is in seconds; `None` means no expiry. `timeout` is one deadline, in seconds, for
        a whole call, however many nodes it asks. `on_error="miss"` reads a failing node as a miss and
        reports its writes as `False`; `"raise"` lets its `NodeError` reach the caller.
        `on_overflow="flush"` empties a node, when it is back, on which more writes have failed than a
        client remembers; `"warn"` leaves it as it is, and says so in the log. `failover="next"` keeps
        the keys of a node that is down on the next node of each key's order of preference, for at most
        a minute each, and a `Gutter` on spare nodes; `"miss"` keeps them nowhere. `pool_size` bounds
        blocking connections per node. With `clearable`, `clear()` can empty the namespace: the names of
        its keys then carry a generation, so that clients with and without it share no value. `locks`
        says who keeps locks: `"redlock"`, a majority of the nodes, or the URL of a service for which a
        plugin is installed. `lock_nodes` are nodes for locks only; without them `"redlock"` keeps locks
        on the cache nodes. `ssl_context` is used for all nodes with TLS, in place of the options of
        their URLs. `shadow` names other nodes that a sample of all reads is compared with. `observers`
        receive events.

        Raise `ConfigurationError` listing every fault found in all of these, and in a process whose
        sockets eventlet has replaced.
        """
        settings = Settings.of(
            nodes=nodes,
            strategy=name_of(strategy),
            codec=name_of(codec),
            secret=secret,
            read_unsigned=read_unsigned,
            read_compressed=read_compressed,
            namespace=namespace,
            default_ttl=default_ttl,
            timeout=timeout,
            on_error=on_error,
            on_overflow=on_overflow,
            failover=failover,
            pool_size=pool_size,
            clearable=clearable,
            locks=locks,
            lock_nodes=lock_nodes,
            ssl_context=ssl_context,
            shadow=shadow,
        )
        refuse_eventlet()
        plugins = load()
        check_observers(observers)
        all_observers = Observers((*observers, *plugins.observers(settings)))
        built = build_codec(plugins, codec, settings), build_strategy(plugins, strategy)
        self._assemble(plugins, settings, built, ssl_context, all_observers)
        warn_of_unverified(ssl_context)
        if self._cluster.disabled:
            warn_of_disabled()
        self._membership.begin(self._cluster)
        self._membership.join(self)
        if self._shadow is not None:
            self._shadow.follow(self._membership)
        if all_observers:
            all_observers.notify(ClientCreated(self))

    def _assemble(
        self,
        plugins: Plugins,
        settings: Settings,
        built: tuple[Codec | ValueFormat, Strategy],
        ssl_context: ssl.SSLContext | None,
        observers: Observers,
    ) -> None:
        """Make the parts of the client: how nodes are reached, which there are, and the cluster of them."""
        codec, strategy = built
        options = backend_options(settings, codec, ssl_context)
        topology = Topology(settings.nodes, strategy)
        io = self._make_io()
        payloads = build_payloads(codec, settings, io.wall)
        self._shadow: ShadowService | None = None
        if settings.shadow is not None:
            from shardcache.clients.shadow import ShadowService  # noqa: PLC0415 - as above

            self._shadow = ShadowService(
                settings.shadow, plugins, options, strategy, payloads, observers
            )
            io = self._shadow.sampling(io)
        connect = self._connector(plugins, options)
        membership = Membership(
            plugins, connect, payloads.others, ssl_context, self._make_closer(io)
        )
        ejector = self._make_ejector(
            shared_prober(options), observers, weakref.ref(membership), plugins, options
        )
        ejector.flushes = settings.on_overflow == "flush"
        weakref.finalize(membership, ejector.stop).atexit = False
        weakref.finalize(membership, membership.services.stop).atexit = False
        self._settings = settings
        self._options = options
        self._membership = membership
        self._is_view = False
        self._follower: ConfigFollower | None = None
        self._result_payloads = ResultPayloads(
            payloads, settings, io.wall, only_raw=options.bare_bytes
        )
        space = membership.namespace(settings.namespace)
        self._use_namespace(space, Protection(RecomputeLog()))
        members = membership.build(topology)
        swallowed = SwallowedErrorLog()
        self._lock_failures = LockFailures(observers)
        self._cluster: Cluster = self._cluster_type(settings, space)(
            io=io,
            topology=topology,
            members=members,
            keys=space.keys,
            payloads=payloads,
            timeout=settings.timeout.call,
            default_ttl=settings.default_ttl,
            on_error=settings.on_error,
            observers=observers,
            ejector=ejector,
            lock_provider=self._make_lock_provider(plugins, settings, options),
            failover=build_failover(settings, topology, members, membership.build),
            note_swallowed=swallowed.note,
            note_refused=swallowed.note_refused,
            note_lock_failure=self._lock_failures.note,
        )
        if settings.lock_nodes is not None:
            voters = Topology(settings.lock_nodes, strategy)
            self._cluster.locks = self._cluster.of_locks(voters, membership.build(voters))

    @classmethod
    @takes_secrets
    def from_url(cls, url: str, *, observers: Iterable[object] = ()) -> Self:
        """Create a client from one URL: hosts separated by commas, settings in its query.

        >>> from shardcache import Client
        >>> Client.from_url("memory://a,b,c?strategy=ketama&namespace=shop")
        <Client [3 nodes] ketama>
        """
        return cls.from_settings(Settings.from_url(url), observers=observers)

    @classmethod
    @takes_secrets
    def from_env(
        cls,
        default: str | None = None,
        *,
        follow: bool | None = None,
        observers: Iterable[object] = (),
    ) -> Self:
        """Create a client from `SHARDCACHE_URL` and the other variables of the settings page.

        When neither it nor `SHARDCACHE_CONFIG` is set, `default` is the URL: for example `memory://a,b,c`
        to cache in the memory of each process. Without a default raise `ConfigurationError`, which names
        the variables. With `follow` and a file in `SHARDCACHE_CONFIG` the client follows that file: see
        `follow_config`. `None` follows it if `SHARDCACHE_FOLLOW` is set to `yes`.
        """
        client = cls.from_settings(Settings.from_env(os.environ, default), observers=observers)
        if follow is None:
            follow = follows(os.environ)
        if follow and names_file(os.environ):
            client.follow_config()
        return client

    @classmethod
    @takes_secrets
    def from_settings(cls, settings: Settings, *, observers: Iterable[object] = ()) -> Self:
        """Create a client from a `Settings` value, such as `Settings.load("shardcache.toml")`."""
        if not isinstance(settings, Settings):
            raise ConfigurationError(
                f"from_settings: must be Settings, not {type(settings).__name__}; a URL is for from_url"
            )
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
            on_overflow=settings.on_overflow,
            failover=settings.failover,
            pool_size=settings.pool_size,
            clearable=settings.clearable,
            locks=settings.locks,
            lock_nodes=settings.lock_nodes,
            ssl_context=settings.ssl_context,
            shadow=settings.shadow,
            observers=observers,
        )

    def view(
        self,
        *,
        on_error: Literal["miss", "raise"] | None = None,
        codec: CodecChoice | None = None,
        namespace: str | None = None,
        default_ttl: float | timedelta | Default | None = DEFAULT,
    ) -> Self:
        """Return a client over the same nodes and connections, with some other settings.

        A setting that is left out is this client's. `namespace` replaces this client's; it is not
        appended to it. Keys, cached functions, tags, locks and `clear` of the view belong to its namespace.

        The view shares the nodes, their health, connections and counters, the observers and background
        threads. A change of nodes through either is one for both. Closing a view closes nothing; once
        the client is closed, its views raise `ClientClosedError`.

        Raise `ConfigurationError` listing every fault of the arguments, and for another codec than `raw`
        in a view of a client with `raw`; `ClientClosedError` when this client is closed.
        """
        shared = self._cluster
        payloads, wall = shared.payloads, shared.io.wall  # raises if this client is closed
        only_raw = self._options.bare_bytes
        settings = view_settings(
            self._settings,
            on_error=on_error,
            codec=name_of(codec),
            namespace=namespace,
            default_ttl=default_ttl,
        )
        if codec is not None:
            built_codec = other_codec("view", codec, settings, only_raw=only_raw)
            payloads = build_payloads(built_codec, settings, wall, payloads.others)
        space = self._membership.namespace(settings.namespace)
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._settings = settings
        view._is_view = True
        view._result_payloads = ResultPayloads(payloads, settings, wall, only_raw=only_raw)
        view._use_namespace(space, self._protection)
        view._cluster = view_cluster(shared, settings, space, payloads)
        self._membership.join(view)
        return view

    @takes_secrets
    def follow_config(
        self,
        path: str | PathLike[str] | None = None,
        *,
        every: float | timedelta | None = LOOK_EVERY,
        on_signal: int | None = None,
        warm_for: float | timedelta | None = None,
        announce_for: float | timedelta | None = None,
    ) -> None:
        """Use the nodes of a file of settings, now and whenever they change there.

        `path` is a file as `Settings.load` reads it; by default that of `SHARDCACHE_CONFIG`. A thread
        reads it at the first call of this client, in a forked child at the child's first call, and then
        every `every` seconds. With `on_signal`, such as `signal.SIGHUP`, it reads the file when that
        signal comes, and with `every=None` only then. The handler that the signal has is called too.

        Nodes change with their names and weights, as by `set_nodes` with this `warm_for`; with
        `announce_for` they are announced for that many seconds before, and for two looks at least. `None` is
        what the file says in its table `[follow]`, else 0. What is found at the first look is used at once,
        and no old node is read. Other settings do not change: the log names those that need a restart. A
        file that cannot be used changes nothing, and is a warning in the log, once.

        Raise `ConfigurationError` if the file cannot be used, if `SHARDCACHE_URL` overrides its nodes,
        on a second call, on a view, and for a signal outside the main thread.
        """
        if self._is_view:
            raise ConfigurationError(
                "follow_config: a view has the nodes of its client: call it there"
            )
        if self._follower is not None:
            raise ConfigurationError(f"follow_config: this client has {self._follower!r} already")
        given = Given.of(warm_for=warm_for, announce_for=announce_for)
        self._follower = config_follower(self, path, every, on_signal, given)
        self._membership.add_service(self._follower)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes of this client."""
        return self._cluster.topology.nodes

    @property
    def failover(self) -> Failover:
        """Return what happens to the keys of a node that is down: `miss`, `next` or a `Gutter`."""
        return self._settings.failover

    @property
    def gutter_nodes(self) -> tuple[Node, ...]:
        """Return the spare nodes of this client, which only stand in for others."""
        failover = self._settings.failover
        return failover.nodes if isinstance(failover, Gutter) else ()

    @property
    def topology(self) -> Topology:
        """Return the nodes with their strategy and placement, as one immutable value."""
        return self._cluster.topology

    @property
    def fingerprint(self) -> str:
        """Return 32 hex digits; clients with equal fingerprints place every key on the same node."""
        return self._cluster.topology.fingerprint

    @property
    def clearable(self) -> bool:
        """Return whether `clear` can empty the namespace of this client."""
        return self._settings.clearable

    @property
    def observer_errors(self) -> int:
        """Return how many times an observer of this client raised; such errors reach no caller."""
        return self._cluster.observers.errors

    @property
    def lock_provider_errors(self) -> int:
        """Return how many times the lock provider raised an error that its protocol does not know.

        The release of a lock, and all that ends one, raises none of them.
        """
        return self._lock_failures.count

    @property
    def ejected(self) -> tuple[Node, ...]:
        """Return the nodes that are not asked at present because they failed; nodes for locks too."""
        members = self._cluster.all_members.values()
        return tuple(member.node for member in members if member.health.ejected)

    def counters(self) -> Counters:
        """Return this client's counters by node name: those of `stats()`, without asking any node.

        It takes microseconds, and so suits a request or a metrics endpoint. `.protection` has the
        counters of the values that were recomputed through this client. `.circuits` tells by node
        whether it is asked (`closed`) or ejected (`open`, `probing`, `quarantine`). `.shadow` has the
        outcomes of the comparisons with a `Shadow`, and is empty without one.
        """
        counted = admin.counters(self._cluster, self._protection.counters.counts)
        if self._shadow is not None:
            counted.shadow = self._shadow.counts()
        return counted

    def node_for(self, key: Key) -> Node:
        """Return the node that holds `key`."""
        return self._cluster.topology.owner(self.hashed(key))

    def nodes_for(self, key: Key, count: int) -> Sequence[Node]:
        """Return up to `count` distinct nodes for `key` in order of preference, its owner first."""
        return self._cluster.topology.preference(self.hashed(key), index(count))

    def stand_in_for(self, key: Key) -> Node | None:
        """Return the node that keeps `key` now, because its own node is ejected; `None` if none does.

        It keeps it under another name. See `failover`.
        """
        _, member, _ = self._cluster.route(key)
        return member.node if isinstance(member, StandIn) else None

    def hashed(self, key: Key) -> bytes:
        """Return the bytes of `key` that the strategy hashes, to look it up in `topology` directly."""
        return self._cluster.hashed(key)

    def __reduce__(self) -> NoReturn:
        """Raise `ClientCopyError`: two clients would share connections, and close them."""
        kind = type(self).__name__
        raise ClientCopyError(
            f"{kind} cannot be copied or pickled: share it within this process; another process "
            f"creates its own with {kind}.from_settings(settings), and Settings can be pickled"
        )

    def __repr__(self) -> str:
        if self._membership.closed:
            return f"<{type(self).__name__} [closed]>"
        topology = self._cluster.topology
        count = len(topology.nodes)
        word = "node" if count == 1 else "nodes"
        out = f", {len(self.ejected)} ejected" if self.ejected else ""
        nodes = f"[{count} {word}{out}] {topology.strategy.name}"
        if not self._is_view:
            return f"<{type(self).__name__} {nodes}>"
        return f"<{type(self).__name__} view {nodes} namespace={self._settings.namespace!r}>"

    def _use_namespace(self, namespace: Namespace, protection: Protection) -> None:
        """Cache functions in a namespace from now on."""
        self._protection = protection
        self._namespace = namespace

    def _cluster_type(self, settings: Settings, namespace: Namespace) -> Callable[..., Cluster]:
        """Return what builds this client's cluster from its parts."""
        return cluster_type(settings, namespace, disabled=is_disabled(os.environ))

    def _cache_context(self) -> CacheContext:
        """Return what the cached functions of this client share.

        It holds the client, which therefore does not hold it: a dropped client is gone at once.
        """
        from shardcache.clients.function_cache import CacheContext  # noqa: PLC0415 - as above

        generations, disabled = self._namespace.generations, self._cluster.disabled
        payloads = self._result_payloads.of
        return CacheContext(
            lambda: self._cluster, self._protection, generations, payloads, disabled
        )

    @abstractmethod
    def _make_io(self) -> IO[BackendT]:
        """Return the port through which this client's operations touch the world."""

    @staticmethod
    @abstractmethod
    def _make_closer(io: Any) -> Callable[[list[BackendT]], None]:  # the port of its own kind
        """Return the function that closes backends of nodes that have left, without a wait."""

    @abstractmethod
    def _make_lock_provider(
        self, plugins: Plugins, settings: Settings, options: BackendOptions
    ) -> LockProvider:
        """Return who keeps this client's locks, of the kind that this client needs."""

    @abstractmethod
    def _make_ejector(
        self,
        prober: Prober,
        observers: Observers,
        client: Callable[[], object],
        plugins: Plugins,
        options: BackendOptions,
    ) -> Ejector:
        """Return what ejects this client's nodes and has `prober` probe them.

        It must not hold the client, which could then never be dropped.
        """

    @abstractmethod
    def _announce(self, nodes: tuple[Node, ...]) -> TopologyChange:
        """Prepare for these nodes; called in a thread without an event loop."""

    @abstractmethod
    def _use_nodes(self, nodes: tuple[Node, ...], warm_for: float) -> TopologyChange:
        """Use exactly these nodes from now on; called in a thread without an event loop."""

    @abstractmethod
    def _connector(self, plugins: Plugins, options: BackendOptions) -> Callable[[Node], BackendT]:
        """Return the function that builds a node's backend, of the kind that this client needs."""

    def _direct_policy(
        self, call: str, ttl: CachedTTL | Default, options: PolicyOptions
    ) -> CachePolicy:
        """Return the policy of a call of `get_or_set` or `get_or_set_many`."""
        check_options(options, call)
        options.setdefault("on_uncacheable", "raise")
        lifetime = self._cluster.default_ttl if isinstance(ttl, Default) else ttl
        policy = policy_of(call, lifetime, options)
        for name in policy.takes_arguments:
            raise ConfigurationError(
                f"{call}: {name} must be a function of the result alone: there are no arguments"
            )
        return self._use_policy(policy)

    def _item_requests(
        self,
        ttl: CachedTTL | Default,
        tags: DirectTagChoice,
        codec: CodecChoice | None,
        returns: Returns,
        options: PolicyOptions,
    ) -> MakeRequest:
        """Return what makes the requests of a call of `get_or_set_many`."""
        from shardcache.operations.recompute.many import ItemRequest  # noqa: PLC0415 - as above

        policy = self._direct_policy("get_or_set_many", ttl, options)
        protection = self._protection
        names, result_tags = direct_tags(tags)
        payloads = self._result_payloads.direct(codec, item_type(returns, "get_or_set_many"), dict)
        return lambda cluster, key: ItemRequest(
            cluster, key, dict, policy, protection, protection.direct, names, result_tags, payloads
        )

    def _cached_policy(
        self,
        call: str,
        policy: CachePolicy | None,
        seconds: Span | Default | None,
        ttl: CachedTTL | Default,
        options: PolicyOptions,
    ) -> CachePolicy:
        """Return the policy of a cached function; there must be a ttl, or a default of the client."""
        policy = cached_policy(policy, seconds, ttl, options, f"client.{call}")
        if policy.ttl is DEFAULT:
            if self._cluster.default_ttl is None:
                raise ConfigurationError(
                    f"{call}: there is no ttl, and the client has no default_ttl; write"
                    f" @client.{call}(ttl=…) in seconds, or ttl=None for no expiry"
                )
            policy = replace(policy, ttl=self._cluster.default_ttl)
        return self._use_policy(policy)

    def _use_policy(self, policy: CachePolicy) -> CachePolicy:
        """Return a policy; log a warning if its lock has too few nodes."""
        if policy.quorum:
            self._membership.warn_of_few_lock_nodes()
        return policy


# What other modules of the package need of a client, and users do not. They take clients of blocking and
# asyncio backends, hence `Any`.


def caches_of(client: ClientBase[Any]) -> CacheContext:
    """Return what the cached functions of a client share."""
    return client._cache_context()  # noqa: SLF001 - see above


def warn_of_few_lock_nodes(client: ClientBase[Any]) -> None:
    """Log one warning if a client has too few nodes for its locks to survive the loss of one."""
    client._membership.warn_of_few_lock_nodes()  # noqa: SLF001 - see above


def add_service(client: ClientBase[Any], service: Service) -> None:
    """Add a background service: the client's next call to a node starts it, `close` stops it."""
    client._membership.add_service(service)  # noqa: SLF001 - see above


def cluster_of(client: ClientBase[Any]) -> Cluster:
    """Return the nodes of a client as operations take them."""
    return client._cluster  # noqa: SLF001 - see above
