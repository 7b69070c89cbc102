"""The parts that clients and their views are built from: strategy, codec, backends, cluster."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.clients.namespaces import Namespace
from shardcache.clients.results import CodecChoice
from shardcache.core.codecs import Codec, CodecFactory, Json, Raw, ValueFormat
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.lock_providers import LockOptions, LockProviderFactory
from shardcache.core.own_types.declared import DeclaredType
from shardcache.core.placement.nodes import Node
from shardcache.core.placement.strategy import Strategy
from shardcache.core.placement.topology import Topology
from shardcache.core.values.other_clients import OtherClients
from shardcache.core.values.payloads import Payloads, payloads_of
from shardcache.errors import ConfigurationError
from shardcache.log import log
from shardcache.operations.cluster.cluster import Cluster
from shardcache.operations.cluster.disabled import DisabledCluster
from shardcache.operations.cluster.failover import Failover, can_stand_in
from shardcache.operations.cluster.members import Member
from shardcache.operations.invalidation.clearing import ClearableCluster
from shardcache.plugin.manager import Plugins
from shardcache.settings import DISABLED_VARIABLE, Gutter, Settings, parse_options

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl


def build_strategy(plugins: Plugins, choice: str | Strategy) -> Strategy:
    """Return the strategy of a name with its options; an object is used as it is."""
    if not isinstance(choice, str):
        return choice
    name, options = parse_options(choice)
    return plugins.strategies[name](**options)


def build_codec(plugins: Plugins, choice: CodecChoice, settings: Settings) -> Codec | ValueFormat:
    """Return the codec of a name with its options; an object is used as it is."""
    if not isinstance(choice, str):
        return choice
    name, options = parse_options(choice)
    factory = plugins.codecs[name]
    if settings.secret is not None and _takes_secret(factory):
        return factory(secret=settings.secret, **options)
    return factory(**options)


def build_payloads(
    codec: Codec | ValueFormat,
    settings: Settings,
    wall: Callable[[], float],
    others: OtherClients | None = None,
    declared: DeclaredType | None = None,
) -> Payloads:
    """Return what turns values into stored bytes and back, with the secrets of the settings.

    `others` is what is read of other programs' values: by default as the settings say. `declared` is
    the type of the values, if one is declared.
    """
    if others is None:
        others = OtherClients(unsigned=settings.read_unsigned, compressed=settings.read_compressed)
    return payloads_of(codec, settings.secret or (), wall, others, declared)


def backend_options(
    settings: Settings, codec: Codec | ValueFormat, ssl_context: ssl.SSLContext | None
) -> BackendOptions:
    """Return the options that all backends of a client have in common."""
    return BackendOptions(
        pool_size=settings.pool_size,
        call_timeout=settings.timeout.call,
        connect_timeout=settings.timeout.connect_seconds,
        ssl_context=ssl_context,
        bare_bytes=isinstance(codec, Raw) and settings.secret is None,
        bare_json=isinstance(codec, Json) and settings.secret is None,
    )


def blocking_backends(plugins: Plugins, options: BackendOptions) -> Callable[[Node], Backend]:
    """Return the function that builds the blocking backend of a node."""
    backends = plugins.backends
    return lambda node: backends[node.address.scheme].blocking(node, options)


def asyncio_backends(plugins: Plugins, options: BackendOptions) -> Callable[[Node], AsyncBackend]:
    """Return the function that builds the asyncio backend of a node."""
    backends = plugins.backends
    return lambda node: backends[node.address.scheme].asyncio(node, options)


def lock_provider_factory(plugins: Plugins, locks: str) -> LockProviderFactory:
    """Return the factory for the setting `locks`, by its name or the scheme of its URL."""
    name = locks.partition("://")[0].lower()
    if name not in plugins.lock_providers:
        known = ", ".join(plugins.lock_providers)
        raise ConfigurationError(
            f"locks: no such lock provider (known: {known}); others come with plugins: for zookeeper://,"
            " install plugins/shardcache-zookeeper of a clone"
        )
    return plugins.lock_providers[name]


def lock_options(options: BackendOptions) -> LockOptions:
    """Return the options of a lock provider that are those of the client's nodes."""
    return LockOptions(options.call_timeout, options.connect_timeout, options.ssl_context)


def cluster_type(
    settings: Settings, namespace: Namespace, *, disabled: bool
) -> Callable[..., Cluster]:
    """Return what builds a client's cluster: one that can be cleared, if the settings say so."""
    if disabled:
        return DisabledCluster
    if settings.clearable:
        return partial(ClearableCluster, generations=namespace.generations)
    return Cluster


def build_failover(
    settings: Settings,
    topology: Topology,
    members: Mapping[str, Member],
    build: Callable[[Topology], Mapping[str, Member]],
) -> Failover | None:
    """Return which members stand in for ejected ones; `build` makes those of spare nodes.

    Raise `ConfigurationError` for a spare node that cannot keep what cached functions need.
    """
    choice = settings.failover
    if not isinstance(choice, Gutter):
        return None if choice == "miss" else Failover(topology, members)
    spares = Topology(choice.nodes, topology.strategy)
    built = build(spares)
    unfit = [
        f"failover: {name} cannot stand in for {owner.node}: it has no CAS, which cached functions need"
        for name, member in built.items()
        for owner in list(members.values())
        if not can_stand_in(member, owner)
    ]
    if unfit:
        raise ConfigurationError(*unfit)
    return Failover(spares, built, choice.ttl_cap, spare=True)


def view_settings(settings: Settings, *, default_ttl: object, **overrides: object) -> Settings:
    """Return a client's settings with those that a view was given; others are `None` or `DEFAULT`.

    Raise `ConfigurationError` listing every fault.
    """
    changed = {name: value for name, value in overrides.items() if value is not None}
    if default_ttl is not DEFAULT:
        changed["default_ttl"] = default_ttl
    checked = Settings.of(nodes=settings.nodes, **changed)
    return replace(settings, **{name: getattr(checked, name) for name in changed})


def view_cluster(
    shared: Cluster, settings: Settings, namespace: Namespace, payloads: Payloads
) -> Cluster:
    """Return a cluster for a view: the nodes, port and health of `shared`, with other settings."""
    view = cluster_type(settings, namespace, disabled=shared.disabled)(
        io=shared.io,
        topology=shared.topology,
        members=shared.members,
        keys=namespace.keys,
        payloads=payloads,
        timeout=shared.timeout,
        default_ttl=settings.default_ttl,
        on_error=settings.on_error,
        observers=shared.observers,
        ejector=shared.ejector,
        lock_provider=shared.lock_provider,
        failover=shared.failover,
        note_swallowed=shared.note_swallowed,
        note_refused=shared.note_refused,
        note_lock_failure=shared.note_lock_failure,
    )
    if shared.locks is not None:
        view.locks = view.of_locks(shared.locks.topology, shared.locks.members)
    return view


def name_of(choice: object) -> object:
    """Return the name of a strategy or codec; anything else as it is, for `Settings` to refuse."""
    return choice if isinstance(choice, str) else getattr(choice, "name", choice)


def refuse_eventlet() -> None:
    """Raise `ConfigurationError` if eventlet has removed `select.poll`, on which calls wait."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("select", "socket"))):
        raise ConfigurationError(
            "eventlet.monkey_patch() has replaced the sockets of this process, and shardcache does not"
            " work with those; use gevent, threads or asyncio (gunicorn -k gevent, or -k gthread)"
        )


def warn_of_disabled() -> None:
    """Log a warning that the cache of a new client is turned off."""
    log.warning(
        "%s is set: this client finds and stores nothing, and cached functions are called each time",
        DISABLED_VARIABLE,
    )


def warn_of_unverified(context: ssl.SSLContext | None) -> None:
    """Log a warning for what a TLS context does not verify."""
    for caution in () if context is None else _unverified(context):
        log.warning("ssl_context: %s", caution)


def _unverified(context: ssl.SSLContext) -> Iterator[str]:
    if not context.verify_mode:  # `ssl.CERT_NONE`
        yield "verify_mode is CERT_NONE: any server is taken for a node, whatever its certificate says"
    elif not context.check_hostname:
        yield (
            "check_hostname is false: a server with the certificate of any other name is taken for a"
            " node"
        )


def _takes_secret(factory: CodecFactory) -> bool:
    return "secret" in inspect.signature(factory).parameters
