"""memcached's classic protocol through pymemcache: for old servers and proxies such as twemproxy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.backends.transport.resolver import NAMES, Resolver
from shardcache.core.placement.nodes import Node
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

__all__ = ["Pymemcache"]

MAX_VALUE_BYTES: Final = 1024 * 1024  # memcached's default item limit (-I)
OPTIONS: Final = ("max_value_bytes",)

_is_count = re.compile(r"[0-9]{1,15}").fullmatch


@dataclass(frozen=True, slots=True)
class Pymemcache:
    """A factory of backends for `pymemcache://` nodes.

    A URL takes `max_value_bytes`; a larger value is refused before anything is sent. A command that
    a proxy does not forward (`stats`, `flush_all`) raises `NodeRefusedError`. `resolver` finds
    the server of a node for each dial.
    """

    resolver: Resolver = field(default=NAMES, repr=False)

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Return the blocking backend; it does not connect yet."""
        # pymemcache loads with the first such node, so other programs start faster.
        from shardcache.backends.pymemcache.backend import PymemcacheBackend  # noqa: PLC0415

        return PymemcacheBackend(node, options, _max_value_bytes(node), self.resolver)

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Return the asyncio backend; it does not connect yet and needs no running loop."""
        from shardcache.backends.pymemcache.backend import AsyncPymemcacheBackend  # noqa: PLC0415

        return AsyncPymemcacheBackend(node, options, _max_value_bytes(node), self.resolver)


def _max_value_bytes(node: Node) -> int:
    fields = dict(node.address.options)
    faults = [
        f"no option {redact(name)} (known: {', '.join(OPTIONS)})"
        for name in fields.keys() - OPTIONS
    ]
    size = fields.get("max_value_bytes", str(MAX_VALUE_BYTES))
    if not _is_count(size) or not int(size):
        faults.append("max_value_bytes must be a whole number above zero")
    if faults:
        raise ConfigurationError(*(f"node {node.name}: {fault}" for fault in faults))
    return int(size)
