"""The server behind a proxy."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace

from shardcache.core.placement.nodes import MEMORY, Address, is_local
from shardcache.core.urls import Parts, redact, split_url
from shardcache.errors import ConfigurationError
from shardcache.testing.faults.sockets import SocketAddress


@dataclass(frozen=True, slots=True)
class Target:
    """The server behind a proxy."""

    label: str
    addresses: tuple[SocketAddress, ...]
    parts: Parts | None  # `None` for a plain `host:port`

    @classmethod
    def parse(cls, target: str) -> Target:
        """Read a URL or `host:port`, and look up its host; raise `ConfigurationError`."""
        plain = isinstance(target, str) and "://" not in target
        url = f"tcp://{target}" if plain else target
        address = Address.parse(url)
        if address.scheme == MEMORY:
            raise ConfigurationError(
                f"{MEMORY}:// nodes are in this process: there is no connection to proxy"
            )
        if plain and (address.port is None or address != _bare(address)):
            raise ConfigurationError(f"a target is a URL or host:port, not {redact(target)}")
        if address.port is None and not is_local(address.scheme):
            raise ConfigurationError(f"a {address.scheme}:// target needs a port")
        return cls(address.label, _look_up(address), None if plain else split_url(url))

    def with_authority(self, authority: str) -> str:
        """Return the target as it was given, with its authority replaced by `authority` (`host:port`)."""
        if self.parts is None:
            return authority
        parts = self.parts
        if is_local(parts.scheme):
            parts = replace(parts, scheme=parts.scheme.removesuffix("+unix"), path="")
        return parts.alone(authority, parts.fields)


def _bare(address: Address) -> Address:
    """Return an address with only its host and port."""
    return Address(address.scheme, address.host, address.port, "")


def _look_up(address: Address) -> tuple[SocketAddress, ...]:
    if is_local(address.scheme):
        return ((socket.AF_UNIX, address.path),)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the host of {address.label} cannot be looked up") from error
    return tuple((family, place) for family, _, _, _, place in found)
