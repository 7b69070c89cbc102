"""What a node's URL asks for that works, and that an operator should yet be told of."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from shardcache.core.nodes import Node

TLS_SCHEMES: Final = ("memcacheds", "rediss")
PLAIN_SCHEMES: Final = (
    "memory",
    "memcached",
    "memcached+unix",
    "pymemcache",
    "redis",
    "redis+unix",
)
NO: Final = ("false", "no", "0")
LOCALHOST: Final = "localhost"

# Options of redis-py that a client decides for all its nodes. A URL may hold them, so that it need
# not be written anew, and they change nothing.
DECIDED_BY_CLIENT: Final = frozenset(
    {
        "decode_responses",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "max_connections",
        "protocol",
        "retry_on_error",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "timeout",
    }
)


def cautions(node: Node) -> Iterator[str]:
    """Return what weakens the node's connections, and what of its URL changes nothing.

    >>> list(cautions(Node("rediss://h?ssl_check_hostname=false")))
    ['ssl_check_hostname=false: a server with the certificate of any other name is taken for it']
    """
    options = dict(node.address.options)
    if node.address.scheme in TLS_SCHEMES:
        yield from _unverified(options)
    if node.address.scheme.startswith("redis"):
        idle = sorted(options.keys() & DECIDED_BY_CLIENT)
        if idle:
            yield f"{', '.join(idle)} in its URL: without effect, for the client decides them"


def _unverified(options: dict[str, str]) -> Iterator[str]:
    if options.get("ssl_cert_reqs", "").lower() == "none":
        yield "ssl_cert_reqs=none: any server is taken for it, whatever its certificate says"
    elif options.get("ssl_check_hostname", "").lower() in NO:
        yield (
            "ssl_check_hostname=false: a server with the certificate of any other name is taken for"
            " it"
        )


def sends_password_in_clear(node: Node) -> bool:
    """Return whether a password travels to another machine without TLS."""
    address = node.address
    given = address.password or dict(address.options).get("password")
    return address.scheme == "redis" and bool(given) and not _is_loopback(address.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST
