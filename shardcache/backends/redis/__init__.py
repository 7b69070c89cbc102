"""Redis nodes, Valkey included: any server from 6.2."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.backends.transport.asyncio import MultiplexedBackend
from shardcache.backends.transport.blocking import SocketBackend
from shardcache.backends.transport.dial import Target
from shardcache.backends.transport.tls import tls_context
from shardcache.core.placement.nodes import Node

if TYPE_CHECKING:  # it loads redis-py
    from shardcache.backends.redis.options import Credentials

__all__ = ["Redis"]


@dataclass(frozen=True, slots=True)
class Redis:
    """Makes backends for `redis://`, `rediss://` (TLS) and `redis+unix://` nodes.

    `credentials` take the place of the user and password of every node's URL: redis-py's
    credential providers fit, and are asked as each connection opens.

    Beside redis-py's own options a URL takes `max_value_bytes`; larger values are refused before
    anything is sent. `flush_all` empties the database of the URL, and no other.
    """

    credentials: Credentials | None = field(default=None, repr=False)

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Make the blocking backend; connects to nothing yet."""
        return SocketBackend(self._target(node, options), options)

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Make the asyncio backend; connects to nothing yet, needs no running loop."""
        return MultiplexedBackend(self._target(node, options), options)

    def _target(self, node: Node, options: BackendOptions) -> Target:
        # redis-py and hiredis load with the first node: a program without one need not wait.
        from shardcache.backends.redis.options import read_options  # noqa: PLC0415
        from shardcache.backends.redis.wire import RedisWire  # noqa: PLC0415

        own = read_options(
            node,
            self.credentials,
            bare_bytes=options.bare_bytes,
            bare_json=options.bare_json,
        )
        secure = node.address.scheme == "rediss"
        tls = tls_context(node, options.ssl_context) if secure else None
        return Target(node, tls, make_wire=partial(RedisWire, own, node.name))
