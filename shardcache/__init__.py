"""One key space over memcached, Redis and embedded nodes, blocking and asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcache.clients.sync import Client
from shardcache.core.events import (
    CallFinished,
    DecodeFailed,
    NodeEjected,
    NodeFailed,
    NodeRestored,
    Observer,
    TopologyChanged,
)
from shardcache.core.lifetimes import DEFAULT
from shardcache.core.nodes import Node
from shardcache.core.policies import TimeoutPolicy
from shardcache.core.topology import Topology, TopologyChange
from shardcache.errors import (
    ClientClosedError,
    CodecError,
    ConfigurationError,
    ConnectTimeoutError,
    DecodeError,
    EncodeError,
    InvalidKeyError,
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    PartialFailureError,
    PoolTimeoutError,
    ShardCacheError,
    TopologyError,
    UnknownPluginError,
    UnsupportedError,
    ValueTooLargeError,
)
from shardcache.operations.whole import NodeStats
from shardcache.plugin.hookspecs import hookimpl
from shardcache.settings import Settings

if TYPE_CHECKING:
    from shardcache.clients.aio import AsyncClient

__all__ = [
    "DEFAULT",
    "AsyncClient",
    "CallFinished",
    "Client",
    "ClientClosedError",
    "CodecError",
    "ConfigurationError",
    "ConnectTimeoutError",
    "DecodeError",
    "DecodeFailed",
    "EncodeError",
    "InvalidKeyError",
    "Node",
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
    "PartialFailureError",
    "PoolTimeoutError",
    "Settings",
    "ShardCacheError",
    "TimeoutPolicy",
    "Topology",
    "TopologyChange",
    "TopologyChanged",
    "TopologyError",
    "UnknownPluginError",
    "UnsupportedError",
    "ValueTooLargeError",
    "hookimpl",
]


def __getattr__(name: str) -> Any:  # the one name below
    """Load the asyncio client when it is asked for: a blocking program needs no event loop."""
    if name == "AsyncClient":
        from shardcache.clients.aio import AsyncClient  # noqa: PLC0415

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
