"""memcached by its meta protocol: servers from 1.6."""

from __future__ import annotations

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.backends.memcached.wire import DEFAULT_MAX_VALUE, MemcachedWire
from shardcache.backends.transport.asyncio import MultiplexedBackend
from shardcache.backends.transport.blocking import SocketBackend
from shardcache.backends.transport.dial import Target
from shardcache.backends.transport.tls import TLS_OPTIONS, tls_context
from shardcache.backends.wire import Incarnation
from shardcache.core.commands import CompareAndDelete, CompareAndExpire
from shardcache.core.placement.nodes import Node
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError


class Memcached:
    """Makes backends for `memcached://`, `memcacheds://` (TLS) and `memcached+unix://`.

    `?max_value_bytes=` is the server's item limit (its `-I`), 1 MiB unless given: a larger value is
    refused before it is sent.
    """

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Make the blocking backend; connects to nothing yet."""
        return SocketBackend(_target(node, options), options)

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Make the asyncio backend; connects to nothing yet."""
        return MultiplexedBackend(_target(node, options), options)


def _target(node: Node, options: BackendOptions) -> Target:
    given = dict(node.address.options)
    secure = node.address.scheme == "memcacheds"
    known = ("max_value_bytes", *(TLS_OPTIONS if secure else ()))
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(
            f"node {node}: {node.address.scheme}:// has no option {', '.join(map(redact, unknown))}"
            f" (known: {', '.join(known)})"
        )
    limit = _limit(node, given.get("max_value_bytes", str(DEFAULT_MAX_VALUE)))
    name = node.name
    incarnation = Incarnation()
    return Target(
        node,
        incarnation=incarnation,
        tls=tls_context(node, options.ssl_context) if secure else None,
        make_wire=lambda: MemcachedWire(name, max_value=limit, incarnation=incarnation),
        lacks=frozenset(
            {CompareAndDelete, CompareAndExpire}
        ),  # it compares CAS numbers, not values
        whole_seconds=True,
    )


def _limit(node: Node, text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ConfigurationError(f"node {node}: max_value_bytes must be a whole number above zero")
    return int(text)
