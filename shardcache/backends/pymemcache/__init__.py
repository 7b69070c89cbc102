"""memcached's classic protocol, through pymemcache: for proxies such as twemproxy and old servers."""

from __future__ import annotations

import re
from typing import Final

from shardcache.backends.base import AsyncBackend, Backend, BackendOptions
from shardcache.core.placement.nodes import Node
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

__all__ = ["Pymemcache"]

MAX_VALUE_BYTES: Final = 1024 * 1024  # memcached's own limit, unless started with -I
OPTIONS: Final = ("max_value_bytes",)

_is_count = re.compile(r"[0-9]{1,15}").fullmatch


class Pymemcache:
    """Makes backends for `pymemcache://` nodes.

    A URL takes `max_value_bytes`; larger values are refused before anything is sent. What a proxy
    does not forward (`stats`, `flush_all`) is a `NodeRefusedError` there.
    """

    def blocking(self, node: Node, options: BackendOptions) -> Backend:
        """Make the blocking backend; connects to nothing yet."""
        # pymemcache loads with the first node: a program without one need not wait.
        from shardcache.backends.pymemcache.backend import PymemcacheBackend  # noqa: PLC0415

        return PymemcacheBackend(node, options, _max_value_bytes(node))

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncBackend:
        """Make the asyncio backend; connects to nothing yet, needs no running loop."""
        from shardcache.backends.pymemcache.backend import AsyncPymemcacheBackend  # noqa: PLC0415

        return AsyncPymemcacheBackend(node, options, _max_value_bytes(node))


def _max_value_bytes(node: Node) -> int:
    given = dict(node.address.options)
    faults = [
        f"no option {redact(name)} (known: {', '.join(OPTIONS)})" for name in given.keys() - OPTIONS
    ]
    size = given.get("max_value_bytes", str(MAX_VALUE_BYTES))
    if not _is_count(size) or not int(size):
        faults.append("max_value_bytes must be a whole number above zero")
    if faults:
        raise ConfigurationError(*(f"node {node.name}: {fault}" for fault in faults))
    return int(size)
