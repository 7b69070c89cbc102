"""The hooks that a plugin may implement.

They are called while a client or the CLI is built, or when nodes change. None is called during a
`get`: a pluggy call costs 2 to 3 µs.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from shardcache.backends.base import BackendFactory
from shardcache.core.codecs import CodecFactory
from shardcache.core.lock_providers import LockProviderFactory
from shardcache.core.placement.strategy import StrategyFactory
from shardcache.core.placement.topology import TopologyChange
from shardcache.plugin.commands import CliCommand
from shardcache.plugin.registry import Registry
from shardcache.settings import Settings

PROJECT = "shardcache"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def shardcache_register_strategies(registry: Registry[StrategyFactory]) -> None:
    """Register hashing strategies by name: `registry.register("mine", MyStrategy)`."""


@hookspec
def shardcache_register_backends(registry: Registry[BackendFactory]) -> None:
    """Register backends by URL scheme: `registry.register("mine", MyBackends())`."""


@hookspec
def shardcache_register_codecs(registry: Registry[CodecFactory]) -> None:
    """Register codecs by name: `registry.register("mine", MyCodec)`."""


@hookspec
def shardcache_register_lock_providers(registry: Registry[LockProviderFactory]) -> None:
    """Register lock providers by URL scheme: `registry.register("mine", MyLocks())`."""


@hookspec
def shardcache_observers(settings: Settings) -> Iterable[object]:  # type: ignore[empty-body]  # a spec has no body
    """Return the observers for a client with these `settings`."""


@hookspec
def shardcache_add_commands(registry: Registry[CliCommand]) -> None:
    """Register commands of the command line by name: `registry.register("mine", my_command)`."""


@hookspec
def shardcache_topology_changed(change: TopologyChange) -> None:
    """React to a change of a client's nodes; called once, after the change."""
