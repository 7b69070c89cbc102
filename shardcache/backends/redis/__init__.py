"""Redis and Valkey nodes: any server from Redis 6.2."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.backends.transport.blocking import SocketBackend
from shardcache.backends.transport.dial import Target
from shardcache.backends.transport.resolver import NAMES, Resolver
from shardcache.backends.transport.tls import tls_context
from shardcache.core.placement.nodes import Node

if TYPE_CHECKING:  # it loads redis-py
    from shardcache.backends.redis.options import Credentials

__all__ = ["Redis"]


@dataclass(frozen=True, slots=True)
class Redis:
    """A factory of backends for `redis://`, `rediss://` (TLS) and `redis+unix://` nodes.

    `credentials` replace the user and password of every node's URL: a credential provider of
    redis-py fits, and is asked for each new connection. `resolver` finds the
    server of a node for each dial.

    A URL takes redis-py's options and `max_value_bytes`; a larger value is refused before anything
    is sent. `flush_all` empties only the database of the URL.
    """

    credentials: Credentials | None = field(default=None, repr=False)
    resolver: Resolver = field(default=NAMES, repr=False)

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Return the blocking backend; it does not connect yet."""
        return SocketBackend(self._target(node, options), options)

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Return the asyncio backend; it does not connect yet and needs no running loop."""
        # Imported here because a program with blocking clients alone needs no event loop.
        from shardcache.backends.transport.asyncio import MultiplexedBackend  # noqa: PLC0415

        return MultiplexedBackend(self._target(node, options), options)

    def _target(self, node: Node, options: BackendOptions) -> Target:
        # redis-py and hiredis load with the first Redis node, so other programs start faster.
        from shardcache.backends.redis.options import is_secure, read_options  # noqa: PLC0415
        from shardcache.backends.redis.wire import RedisWire  # noqa: PLC0415

        own = read_options(
            node,
            self.credentials,
            bare_bytes=options.bare_bytes,
            bare_json=options.bare_json,
        )
        secure = is_secure(node.address.scheme)
        tls = tls_context(node, options.ssl_context) if secure else None
        wire = partial(RedisWire, own, node.name)
        return Target(
            node, tls, resolver=self.resolver, make_wire=wire, supports=RedisWire.supports
        )
