"""Warnings about a node's URL: what works, but weakens its connections or has no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from shardcache.core.placement.nodes import Node

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

# Options of redis-py that the client decides for all its nodes. They have no effect in a URL, and
# are accepted so that URLs written for redis-py work unchanged.
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


def url_warnings(node: Node) -> Iterator[str]:
    """Yield a warning for each option that weakens the node's connections or has no effect.

    >>> list(url_warnings(Node("rediss://h?ssl_check_hostname=false")))
    ['ssl_check_hostname=false: a server with a certificate for any other name is accepted']
    """
    options = dict(node.address.options)
    if node.address.scheme in TLS_SCHEMES:
        yield from tls_warnings(options)
    if node.address.scheme.startswith("redis"):
        unused = sorted(options.keys() & DECIDED_BY_CLIENT)
        if unused:
            yield f"{', '.join(unused)} in its URL: without effect, because the client decides this"


def tls_warnings(options: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning if the options of a URL weaken TLS."""
    if options.get("ssl_cert_reqs", "").lower() == "none":
        yield "ssl_cert_reqs=none: any server is accepted, whatever its certificate says"
    elif options.get("ssl_check_hostname", "").lower() in NO:
        yield (
            "ssl_check_hostname=false: a server with a certificate for any other name is accepted"
        )


def sends_password_in_clear(node: Node) -> bool:
    """Return whether the client sends a password to another machine without TLS."""
    address = node.address
    password = address.password or dict(address.options).get("password")
    return address.scheme == "redis" and bool(password) and not _is_loopback(address.host)


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415 - only a password on a plain connection asks

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST
