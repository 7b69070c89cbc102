"""memcached 1.6 and later, by its meta protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.backends.memcached.reader import DEFAULT_MAX_VALUE
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.transport.blocking import SocketBackend
from shardcache.backends.transport.dial import Target
from shardcache.backends.transport.resolver import NAMES, Resolver
from shardcache.backends.transport.tls import TLS_OPTIONS, tls_context
from shardcache.backends.wire import Incarnation
from shardcache.core.placement.nodes import Node
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Memcached:
    """A factory of backends for `memcached://`, `memcacheds://` (TLS) and `memcached+unix://`.

    `?max_value_bytes=` is the server's item limit (its `-I`), by default 1 MiB. A larger value is
    refused before it is sent. `resolver` finds the server of a node for each dial.
    """

    resolver: Resolver = field(default=NAMES, repr=False)

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Return the blocking backend; it does not connect yet."""
        return SocketBackend(self._target(node, options), options)

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Return the asyncio backend; it does not connect yet."""
        # Imported here because a program with blocking clients alone needs no event loop.
        from shardcache.backends.transport.asyncio import MultiplexedBackend  # noqa: PLC0415

        return MultiplexedBackend(self._target(node, options), options)

    def _target(self, node: Node, options: BackendOptions) -> Target:
        fields = dict(node.address.options)
        secure = node.address.scheme.partition("+")[0] == "memcacheds"
        known = ("max_value_bytes", *(TLS_OPTIONS if secure else ()))
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ConfigurationError(
                f"node {node}: {node.address.scheme}:// has no option {', '.join(map(redact, unknown))}"
                f" (known: {', '.join(known)})"
            )
        limit = _limit(node, fields.get("max_value_bytes", str(DEFAULT_MAX_VALUE)))
        name = node.name
        incarnation = Incarnation()
        return Target(
            node,
            resolver=self.resolver,
            incarnation=incarnation,
            tls=tls_context(node, options.ssl_context) if secure else None,
            make_wire=lambda: MemcachedWire(name, max_value=limit, incarnation=incarnation),
            supports=MemcachedWire.supports,
            whole_seconds=True,
        )


def _limit(node: Node, text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ConfigurationError(f"node {node}: max_value_bytes must be a whole number above zero")
    return int(text)
