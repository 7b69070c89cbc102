"""The hooks of this plugin; the entry point in `pyproject.toml` names this module."""

from __future__ import annotations

from collections.abc import Iterable

from shardcache import Settings, hookimpl
from shardcache.backends.base import BackendFactory
from shardcache.core.codecs import CodecFactory
from shardcache.core.lock_providers import LockProviderFactory
from shardcache.core.placement.strategy import StrategyFactory
from shardcache.plugin.registry import Registry
from shardcache_example.codec import JsonZlib
from shardcache_example.locks import SqliteLocksFactory
from shardcache_example.observer import slow_calls
from shardcache_example.sqlite import Sqlite
from shardcache_example.strategy import Sha256


@hookimpl
def shardcache_register_strategies(registry: Registry[StrategyFactory]) -> None:
    """Offer the strategy by name."""
    registry.register("sha256", Sha256)


@hookimpl
def shardcache_register_backends(registry: Registry[BackendFactory]) -> None:
    """Offer the backend by its URL scheme."""
    registry.register("sqlite", Sqlite())


@hookimpl
def shardcache_register_codecs(registry: Registry[CodecFactory]) -> None:
    """Offer the codec by name."""
    registry.register("json-zlib", JsonZlib)


@hookimpl
def shardcache_register_lock_providers(registry: Registry[LockProviderFactory]) -> None:
    """Offer the locks by the scheme of their URL."""
    registry.register("sqlite", SqliteLocksFactory())


@hookimpl
def shardcache_observers(settings: Settings) -> Iterable[object]:  # noqa: ARG001 - the same for all
    """Watch every client."""
    return [slow_calls]
