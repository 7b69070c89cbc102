"""One key space over memcached, Redis and in-process memory, sync and async."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from shardcache.clients.asyncio import AsyncClient
    from shardcache.clients.blocking import Client
    from shardcache.clients.cached import AsyncCachedFunction, CachedFunction
    from shardcache.clients.function_cache import CacheInfo
    from shardcache.clients.locks import AsyncLease, AsyncLock, Lease, Lock
    from shardcache.core.cache_policy import CachePolicy
    from shardcache.core.events import (
        CallDetoured,
        CallFinished,
        ClientCreated,
        ComputeFinished,
        DecodeFailed,
        DeletesOverflowed,
        DeletesReplayed,
        KeysAccessed,
        LeaseLost,
        LockProviderFailed,
        NodeEjected,
        NodeFailed,
        NodeRestored,
        Observer,
        OldNodesRead,
        OperationFinished,
        ShadowCompared,
        StaleServed,
        StampedePrevented,
        TopologyChanged,
        WarmUpEnded,
    )
    from shardcache.core.leases import LockPolicy
    from shardcache.core.lifetimes import DEFAULT, KEEP
    from shardcache.core.placement.nodes import Node
    from shardcache.core.placement.topology import Topology, TopologyChange
    from shardcache.core.timeouts import TimeoutPolicy
    from shardcache.core.values.entries import CacheEntry
    from shardcache.decorators import (
        aclose_default_clients,
        cached,
        cached_many,
        configure,
        default_async_client,
        default_client,
    )
    from shardcache.errors import (
        CheckFailedError,
        ClientClosedError,
        ClientCopyError,
        CodecError,
        ConfigurationError,
        ConnectTimeoutError,
        DecodeError,
        EncodeError,
        InvalidKeyError,
        KeyBuildError,
        LockError,
        LockLost,
        LockTimeout,
        LockUnavailable,
        NodeError,
        NodeProtocolError,
        NodeRefusedError,
        NodeTimeoutError,
        NodeUnavailableError,
        NotACounterError,
        PartialFailureError,
        PoolTimeoutError,
        RecomputeTimeoutError,
        ShardCacheError,
        TooManyConnectionsError,
        TopologyError,
        UncacheableResultError,
        UnknownPluginError,
        UnsupportedError,
        ValueTooLargeError,
    )
    from shardcache.operations.keys.admin import Counters, NodeStats, Stats
    from shardcache.operations.keys.checking import NodeCheck
    from shardcache.operations.recompute.blocks import bypass, refresh
    from shardcache.plugin.hookspecs import hookimpl
    from shardcache.settings import Gutter, Settings, Shadow

__all__ = [
    "DEFAULT",
    "KEEP",
    "AsyncCachedFunction",
    "AsyncClient",
    "AsyncLease",
    "AsyncLock",
    "CacheEntry",
    "CacheInfo",
    "CachePolicy",
    "CachedFunction",
    "CallDetoured",
    "CallFinished",
    "CheckFailedError",
    "Client",
    "ClientClosedError",
    "ClientCopyError",
    "ClientCreated",
    "CodecError",
    "ComputeFinished",
    "ConfigurationError",
    "ConnectTimeoutError",
    "Counters",
    "DecodeError",
    "DecodeFailed",
    "DeletesOverflowed",
    "DeletesReplayed",
    "EncodeError",
    "Gutter",
    "InvalidKeyError",
    "KeyBuildError",
    "KeysAccessed",
    "Lease",
    "LeaseLost",
    "Lock",
    "LockError",
    "LockLost",
    "LockPolicy",
    "LockProviderFailed",
    "LockTimeout",
    "LockUnavailable",
    "Node",
    "NodeCheck",
    "NodeEjected",
    "NodeError",
    "NodeFailed",
    "NodeProtocolError",
    "NodeRefusedError",
    "NodeRestored",
    "NodeStats",
    "NodeTimeoutError",
    "NodeUnavailableError",
    "NotACounterError",
    "Observer",
    "OldNodesRead",
    "OperationFinished",
    "PartialFailureError",
    "PoolTimeoutError",
    "RecomputeTimeoutError",
    "Settings",
    "Shadow",
    "ShadowCompared",
    "ShardCacheError",
    "StaleServed",
    "StampedePrevented",
    "Stats",
    "TimeoutPolicy",
    "TooManyConnectionsError",
    "Topology",
    "TopologyChange",
    "TopologyChanged",
    "TopologyError",
    "UncacheableResultError",
    "UnknownPluginError",
    "UnsupportedError",
    "ValueTooLargeError",
    "WarmUpEnded",
    "aclose_default_clients",
    "bypass",
    "cached",
    "cached_many",
    "configure",
    "default_async_client",
    "default_client",
    "hookimpl",
    "refresh",
]

# Where each name is. It is loaded at its first use, so that a program loads what it uses: a worker that
# only blocks has no event loop, and one that only names errors has no client.
_NAMES_OF_MODULES: Final = {
    "shardcache.clients.asyncio": ("AsyncClient",),
    "shardcache.clients.blocking": ("Client",),
    "shardcache.clients.cached": ("AsyncCachedFunction", "CachedFunction"),
    "shardcache.clients.function_cache": ("CacheInfo",),
    "shardcache.clients.locks": ("AsyncLease", "AsyncLock", "Lease", "Lock"),
    "shardcache.core.cache_policy": ("CachePolicy",),
    "shardcache.core.events": (
        "CallDetoured",
        "CallFinished",
        "ClientCreated",
        "ComputeFinished",
        "DecodeFailed",
        "DeletesOverflowed",
        "DeletesReplayed",
        "KeysAccessed",
        "LeaseLost",
        "LockProviderFailed",
        "NodeEjected",
        "NodeFailed",
        "NodeRestored",
        "Observer",
        "OldNodesRead",
        "OperationFinished",
        "ShadowCompared",
        "StaleServed",
        "StampedePrevented",
        "TopologyChanged",
        "WarmUpEnded",
    ),
    "shardcache.core.leases": ("LockPolicy",),
    "shardcache.core.lifetimes": ("DEFAULT", "KEEP"),
    "shardcache.core.placement.nodes": ("Node",),
    "shardcache.core.placement.topology": ("Topology", "TopologyChange"),
    "shardcache.core.timeouts": ("TimeoutPolicy",),
    "shardcache.core.values.entries": ("CacheEntry",),
    "shardcache.decorators": (
        "aclose_default_clients",
        "cached",
        "cached_many",
        "configure",
        "default_async_client",
        "default_client",
    ),
    "shardcache.errors": (
        "CheckFailedError",
        "ClientClosedError",
        "ClientCopyError",
        "CodecError",
        "ConfigurationError",
        "ConnectTimeoutError",
        "DecodeError",
        "EncodeError",
        "InvalidKeyError",
        "KeyBuildError",
        "LockError",
        "LockLost",
        "LockTimeout",
        "LockUnavailable",
        "NodeError",
        "NodeProtocolError",
        "NodeRefusedError",
        "NodeTimeoutError",
        "NodeUnavailableError",
        "NotACounterError",
        "PartialFailureError",
        "PoolTimeoutError",
        "RecomputeTimeoutError",
        "ShardCacheError",
        "TooManyConnectionsError",
        "TopologyError",
        "UncacheableResultError",
        "UnknownPluginError",
        "UnsupportedError",
        "ValueTooLargeError",
    ),
    "shardcache.operations.keys.admin": ("Counters", "NodeStats", "Stats"),
    "shardcache.operations.keys.checking": ("NodeCheck",),
    "shardcache.operations.recompute.blocks": ("bypass", "refresh"),
    "shardcache.plugin.hookspecs": ("hookimpl",),
    "shardcache.settings": ("Gutter", "Settings", "Shadow"),
}
_MODULE_OF: Final = {name: module for module, names in _NAMES_OF_MODULES.items() for name in names}
_INNER_MODULES: Final = (
    *("backends", "clients", "core", "decorators", "errors"),
    *("io", "operations", "plugin", "settings"),
)

__version__: str


def __getattr__(name: str) -> Any:  # one of the names above
    """Load on first use a public name, a module of the package, or the package's version."""
    if name == "__version__":
        return _version()
    if name in _INNER_MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("shardcache")
    except PackageNotFoundError:  # frozen, or copied, without its metadata
        return "unknown"
