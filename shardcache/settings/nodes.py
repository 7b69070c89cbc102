"""Nodes from the URLs and tables of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shardcache.core.placement.nodes import Node, is_local
from shardcache.core.placement.topology import check_nodes
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import Parts, redact, split_url, unquote
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults, near, unknown, within

# The settings of a client that a URL's query may hold; all other fields are the backend's.
CLIENT_FIELDS: Final = (
    "strategy",
    "codec",
    "read_unsigned",
    "read_compressed",
    "namespace",
    "default_ttl",
    "timeout",
    "connect_timeout",
    "on_error",
    "on_overflow",
    "failover",
    "pool_size",
    "clearable",
)
_TABLE_KEYS: Final = ("url", "name", "weight")

_weight = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch


@takes_secrets
def parse_nodes(url: str) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Return the nodes of a URL with one or more hosts, and the client's settings in its query.

    The hosts share scheme, credentials, path and the rest of the query. `host:port*3` gives
    weight 3. Raise `ConfigurationError` listing every fault, none of which holds a secret.

    >>> parse_nodes("memory://a,b*2?strategy=jump&max_entries=9")[0][1].url
    'memory://b?max_entries=9'
    """
    faults = Faults()
    nodes, settings = read_url(url, "", faults)
    faults.report()
    return nodes, settings


def read_url(url: str, source: str, faults: Faults) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Return what `parse_nodes` returns, from the valid parts; add the faults of the others."""
    try:
        parts = split_url(url)
    except ConfigurationError as error:
        faults.add(source, error)
        return (), {}
    settings: dict[str, str] = {}
    node_fields: list[str] = []
    for field in parts.fields:
        with faults.of(source):
            name, value = _field(field)
            if name in CLIENT_FIELDS:
                _put(settings, name, value)
            else:
                node_fields.append(field)
    return _nodes_of_hosts(parts, tuple(node_fields), source, faults), settings


def _field(field: str) -> tuple[str, str]:
    name, _, value = field.partition("=")
    name = unquote(name)
    if name == "secret":
        raise ConfigurationError(
            "?secret=: a secret does not belong in a URL (set SHARDCACHE_SECRET, or pass `secret`)"
        )
    if name not in CLIENT_FIELDS and near(name, CLIENT_FIELDS):
        fault = unknown(name, CLIENT_FIELDS).faults[0]
        raise ConfigurationError(within(f"?{name}=", fault))
    return name, unquote(value)


def _put(settings: dict[str, str], name: str, value: str) -> None:
    if name in settings:
        raise ConfigurationError(f"?{name}=: is given more than once")
    settings[name] = value


def _nodes_of_hosts(
    parts: Parts, fields: tuple[str, ...], source: str, faults: Faults
) -> tuple[Node, ...]:
    """Return a node for each host; a fault names its place, as its text may hold a secret."""
    several = len(parts.hosts) > 1
    nodes: list[Node] = []
    for place, host in enumerate(parts.hosts, 1):
        with faults.of(within(source, f"host {place}") if several else source):
            if several and not host:
                raise ConfigurationError("is empty")
            nodes.append(_node(parts, host, fields))
    return tuple(nodes)


def _node(parts: Parts, written: str, fields: tuple[str, ...]) -> Node:
    host, star, weight = written.rpartition("*")
    if not star or is_local(parts.scheme):
        return Node(parts.alone(written, fields))
    if not _weight(weight) or not float(weight):
        raise ConfigurationError("a weight is a number above zero, as in 10.0.0.1:11211*3")
    return Node(parts.alone(host, fields), weight=float(weight) if "." in weight else int(weight))


@takes_secrets
def node_list(nodes: object) -> tuple[Node, ...]:
    """Return the nodes of a client's argument `nodes`: URLs, `Node`s, tables, or one of these.

    Raise `ConfigurationError` listing every fault, `TopologyError` if there is no node or two share
    a name.

    >>> [node.name for node in node_list(["memory://a,b", Node("memcached://10.0.0.1")])]
    ['a', 'b', '10.0.0.1:11211']
    """
    if isinstance(nodes, (str, Node, Mapping)):
        return check_nodes(_nodes_of(nodes))
    if not isinstance(nodes, Iterable) or isinstance(nodes, bytes):
        raise ConfigurationError(f"must be a list of URLs and nodes, not {type(nodes).__name__}")
    faults = Faults()
    found: list[Node] = []
    for place, entry in enumerate(nodes, 1):
        with faults.of(f"entry {place}"):
            found.extend(_nodes_of(entry))
    if found or not faults:
        with faults.of(""):
            check_nodes(found)
    faults.report()
    return tuple(found)


@takes_secrets
def parse_node(node: object) -> Node:
    """Return the one node of a URL, a table or a `Node`."""
    found = _nodes_of(node)
    if len(found) > 1:
        raise ConfigurationError(f"expected one node, not {len(found)}")
    return found[0]


def _nodes_of(entry: object) -> Sequence[Node]:
    if isinstance(entry, Node):
        _refuse_settings(name for name, _ in entry.address.options)
        return (entry,)
    if isinstance(entry, Mapping):
        return (_from_table(entry),)
    if not isinstance(entry, str):
        raise ConfigurationError(f"a node is a URL or a Node, not {type(entry).__name__}")
    nodes, settings = parse_nodes(entry)
    _refuse_settings(settings)
    return nodes


def _refuse_settings(names: Iterable[str]) -> None:
    faults = [
        f"?{name}=: is a setting of the client, not of a node: give it as `{name}`, or the whole"
        " URL to `from_url`"
        for name in names
        if name in CLIENT_FIELDS
    ]
    if faults:
        raise ConfigurationError(*faults)


def _from_table(table: Mapping[object, object]) -> Node:
    """Return the node of `{url = …, name = …, weight = …}`; the last two are optional."""
    faults = Faults()
    for key in table:
        if key not in _TABLE_KEYS:
            with faults.of(redact(key)):
                raise unknown(key, _TABLE_KEYS)
    with faults.of(""):
        if "url" not in table:
            raise ConfigurationError("a node needs a URL, as `url`")
        node = Node(**{key: table[key] for key in _TABLE_KEYS if key in table})  # type: ignore[arg-type]  # Node checks the types
        _refuse_settings(name for name, _ in node.address.options)
    faults.report()
    return node
