"""A node and a command in the words of OpenTelemetry's stable conventions for databases.

https://opentelemetry.io/docs/specs/semconv/db/ has database spans, metrics, and Redis.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from shardcache import Node
from shardcache.core.placement.nodes import Address, is_local

Attributes: TypeAlias = dict[str, str | int]

SCHEMA = "https://opentelemetry.io/schemas/1.33.0"

# Each key of these is a command of its own on the wire. A get of many keys is one operation, as
# Redis' MGET is.
BATCHES = {"setmany": "set", "deletemany": "delete"}

SYSTEMS = {"memcacheds": "memcached", "pymemcache": "memcached", "rediss": "redis"}


class Description(NamedTuple):
    """What all spans of one operation on one node have in common."""

    span_name: str
    attributes: Attributes  # of the span
    metric_attributes: Attributes


def describe(node: Node, command: str, *, batch: bool) -> Description:
    """Return the description of a command; `batch` is whether it has two keys or more.

    >>> describe(Node("redis://10.0.0.1/2"), "setmany", batch=True).metric_attributes
    {'db.system.name': 'redis', 'db.operation.name': 'BATCH set', 'db.namespace': '2', \
'server.address': '10.0.0.1', 'server.port': 6379}
    """
    single = BATCHES.get(command, command)
    operation = f"BATCH {single}" if batch and command in BATCHES else single
    address = node.address
    system = address.scheme.removesuffix("+unix")
    attributes: Attributes = {
        "db.system.name": SYSTEMS.get(system, system),
        "db.operation.name": operation,
    }
    if attributes["db.system.name"] == "redis":
        attributes["db.namespace"] = _database(address)
    attributes["server.address"] = address.path if is_local(address.scheme) else address.host
    if address.port is not None:
        attributes["server.port"] = address.port
    span_name = f"{operation} {address.label}"
    return Description(span_name, {**attributes, "shardcache.node": node.name}, attributes)


def _database(address: Address) -> str:
    """Return the number of a Redis database: an option of the URL, or the path after its port."""
    path = "" if is_local(address.scheme) else address.path
    return dict(address.options).get("db") or path or "0"
