"""The hooks of this plugin; the entry point in `pyproject.toml` names this module."""

from __future__ import annotations

from collections.abc import Iterable

from shardcache import Settings, hookimpl
from shardcache.core.placement.strategy import StrategyFactory
from shardcache.plugin.registry import Registry
from shardcache_example.observer import slow_calls
from shardcache_example.strategy import Sha256


@hookimpl
def shardcache_register_strategies(registry: Registry[StrategyFactory]) -> None:
    """Offer the strategy by name."""
    registry.register("sha256", Sha256)


@hookimpl
def shardcache_observers(settings: Settings) -> Iterable[object]:  # noqa: ARG001 - the same for all
    """Watch every client."""
    return [slow_calls]
