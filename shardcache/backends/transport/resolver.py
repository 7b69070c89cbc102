"""Where a node's server listens: asked for each dial, because the answer may change."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

from shardcache.core.placement.nodes import Address, Node, is_local

AddressInfo: TypeAlias = tuple[socket.AddressFamily, Any]  # a family, and an address of it


class Resolver(Protocol):
    """The addresses of a node's server, such as a name service or a monitor of failovers.

    It is asked for each dial, so a node can move between two connections. A subclass needs only
    `resolve`.

    >>> class Primary(Resolver):
    ...     def resolve(self, node):
    ...         return [(socket.AF_INET, ("10.0.0.7", 6379))]
    >>> Primary().known(Node("redis://cache1"))
    """

    def known(self, node: Node) -> Sequence[AddressInfo] | None:  # noqa: ARG002 - as documented
        """Return the addresses if that needs no waiting, else `None`; must not block or raise."""
        return None

    def resolve(self, node: Node) -> Sequence[AddressInfo]:
        """Return the addresses of the node's server now, the best first.

        It runs in a daemon thread and may block. If it raises or is late, the last good addresses
        are dialed.
        """


class NameResolver(Resolver):
    """The host and port of the node's URL; a name is looked up by the system's name service."""

    def known(self, node: Node) -> Sequence[AddressInfo] | None:
        """Return the path of a Unix socket or a numeric address; `None` for a name."""
        address = node.address
        if is_local(address.scheme):
            return [(socket.AF_UNIX, address.path)]
        try:
            return _look_up(address, socket.AI_NUMERICHOST)
        except (OSError, UnicodeError, LookupError):  # the last for a codec
            return None

    def resolve(self, node: Node) -> Sequence[AddressInfo]:
        """Look up the host of the node's URL; raise `OSError` if it is unknown or no legal name."""
        try:
            return _look_up(node.address, 0)
        except UnicodeError as error:  # an empty label, or one above 63 characters
            raise OSError(f"not a valid host name: {error}") from error


NAMES: Final = NameResolver()


def _look_up(address: Address, flags: int) -> Sequence[AddressInfo]:
    # Bytes need no codec: while the interpreter exits, the codec of names cannot be loaded any more.
    host = address.host
    numeric = flags == socket.AI_NUMERICHOST and host.isascii()
    name = host.encode("ascii") if numeric else host
    found = socket.getaddrinfo(name, address.port or 0, type=socket.SOCK_STREAM, flags=flags)
    return [(family, place) for family, _, _, _, place in found]
