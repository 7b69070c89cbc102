"""The hook of this plugin; the entry point in `pyproject.toml` names this module."""

from __future__ import annotations

from shardcache import hookimpl
from shardcache.core.lock_providers import LockProviderFactory
from shardcache.plugin.registry import Registry
from shardcache_zookeeper.provider import ZooKeeperLocks


@hookimpl
def shardcache_register_lock_providers(registry: Registry[LockProviderFactory]) -> None:
    """Register the locks of a ZooKeeper ensemble."""
    for scheme in ("zookeeper", "zookeepers"):
        registry.register(scheme, ZooKeeperLocks())
