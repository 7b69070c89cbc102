"""One key space over memcached, Redis and in-process memory, sync and async."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from shardcache.clients.asyncio import AsyncClient

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


# Nothing is printed in a program that has not set up logging.
logging.getLogger("shardcache").addHandler(logging.NullHandler())

__version__: str


def __getattr__(name: str) -> Any:  # one of the names below
    """Load on first use what few programs need: an event loop, the package's metadata."""
    if name == "__version__":
        return _version()
    if name == "AsyncClient":
        from shardcache.clients.asyncio import AsyncClient  # noqa: PLC0415

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("shardcache")
    except PackageNotFoundError:  # frozen, or copied, without its metadata
        return "unknown"
