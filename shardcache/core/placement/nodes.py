"""A cache node: its name, which decides where keys live, and its address."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shardcache.core.numeric import real
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import parse_fields, redact, split_url, unquote
from shardcache.errors import ConfigurationError, TopologyError

DEFAULT_PORTS: Final = {
    "memcached": 11211,
    "memcacheds": 11211,
    "pymemcache": 11211,
    "redis": 6379,
    "rediss": 6379,
}
MEMORY: Final = "memory"
MEMCACHED: Final = ("memcached", "memcacheds", "pymemcache")
WITHOUT_LOGIN: Final = (MEMORY, "memcached+unix", *MEMCACHED)
REDIS: Final = ("redis", "rediss")
KNOWN_SCHEMES: Final = frozenset({*DEFAULT_PORTS, MEMORY, "memcached+unix", "redis+unix"})
MAX_PORT: Final = 65535
MAX_WEIGHT: Final = 1_000_000_000  # keeps the sum of many weights finite, and exact as a float

_bracketed = re.compile(r"\[([^][]*)](?::(.*))?").fullmatch
_hostname = re.compile(r"[\w.-]+").fullmatch  # other alphabets and underscores are allowed
_port = re.compile(r"[0-9]{1,5}").fullmatch
_database = re.compile(r"[0-9]{1,15}").fullmatch


@dataclass(frozen=True, slots=True, init=False)
class Node:
    """A cache node: `name` is its identity in the placement, `url` its current address.

    `name` defaults to `host:port`. If it stays the same while the address changes, no key moves.
    `weight` is the node's share relative to the others. `address` holds the parts of the URL, which
    is parsed once. Credentials in the URL are never shown.

    >>> Node("redis://app:hunter2@10.0.0.1/2")
    Node('redis://10.0.0.1:6379/2', name='10.0.0.1:6379', weight=1)
    """

    url: str
    name: str
    weight: float = 1
    named: bool = field(default=False, compare=False)
    address: Address = field(init=False, compare=False)

    @takes_secrets
    def __init__(self, url: str, name: str | None = None, weight: float = 1) -> None:
        """Check the node; raise `TopologyError` for a bad name or weight, listing both.

        Raise `ConfigurationError` for a malformed URL, with a message that quotes nothing of it.
        """
        address = Address.parse(url)
        faults = (*_name_faults(name), *_weight_faults(weight))
        if faults:
            label = address.label if name is None else redact(name)
            raise TopologyError(*(f"node {label}: {fault}" for fault in faults))
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "name", address.label if name is None else name)
        object.__setattr__(self, "weight", weight if isinstance(weight, int) else real(weight))
        object.__setattr__(self, "named", name is not None)
        object.__setattr__(self, "address", address)

    def __repr__(self) -> str:
        return f"Node({str(self.address)!r}, name={self.name!r}, weight={self.weight!r})"

    def __str__(self) -> str:
        return self.name


def _name_faults(name: object) -> Iterator[str]:
    if name is None:
        return
    if not isinstance(name, str):
        yield "its name must be text"
    elif not name or not name.isprintable():
        yield "its name must be printable text"


def _weight_faults(weight: object) -> Iterator[str]:
    number = real(weight)
    if number is None:
        yield "its weight must be a number"
    elif not 0 < number <= MAX_WEIGHT:  # also true of NaN
        yield f"its weight must be above zero and at most {MAX_WEIGHT}"


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a node's URL; `str()` of it holds no credentials.

    `path` is the socket's path for the `+unix` schemes, otherwise the text after the port without
    its slash (Redis' database number). `options` are the query's fields, percent-decoded.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    @takes_secrets
    def parse(cls, url: str) -> Address:
        """Parse one node's URL; raise `ConfigurationError` naming the fault, but no secret."""
        parts = split_url(url)
        if len(parts.hosts) > 1:
            raise ConfigurationError("a node has one host (a list of them is for the client)")
        scheme = parts.scheme
        username, _, password = (parts.user or "").partition(":")
        path = _path(scheme, unquote(parts.path))
        faults = [*_login_faults(scheme, username or password), *_path_faults(scheme, path)]
        if faults:
            raise ConfigurationError(*faults)
        host, port = _host_and_port(scheme, parts.hosts[0])
        return cls(
            scheme=scheme,
            host=host,
            port=DEFAULT_PORTS.get(scheme) if port is None else port,
            path=path,
            username=unquote(username) or None,
            password=unquote(password) or None,
            options=_distinct(tuple(parse_fields(parts.fields))),
        )

    @property
    def label(self) -> str:
        """Return the default name of a node: `host:port`, a socket's path, or a memory node's name."""
        if is_local(self.scheme):
            return self.path
        return self._authority or self.scheme

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.scheme != MEMORY else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def __str__(self) -> str:
        if is_local(self.scheme):
            return f"{self.scheme}://{self.path}"
        return f"{self.scheme}://{self._authority}" + (f"/{self.path}" if self.path else "")


def is_local(scheme: str) -> bool:
    """Return whether a scheme's nodes are Unix sockets on this machine."""
    return scheme.endswith("+unix")


def _url_kind(scheme: str) -> str:
    """Return how an error names a URL: an unknown scheme is left out, as it may be part of a password."""
    return f"a {scheme}:// URL" if scheme in KNOWN_SCHEMES else "a URL of this scheme"


def _path(scheme: str, path: str) -> str:
    if not path.isprintable():
        raise ConfigurationError("the path of a URL must be printable")
    if not is_local(scheme):
        return path.strip("/")
    if not path.strip("/"):
        raise ConfigurationError(f"{_url_kind(scheme)} needs the path of its socket")
    return path


def _login_faults(scheme: str, login: str) -> Iterator[str]:
    """Yield the fault of a login that the scheme would ignore, and the operator rely on."""
    if login and scheme in WITHOUT_LOGIN:
        yield f"{_url_kind(scheme)} has no user or password: the client cannot log in there"


def _path_faults(scheme: str, path: str) -> Iterator[str]:
    """Yield the fault of a path that has no meaning for the scheme."""
    if path and scheme == MEMORY:
        yield f"{_url_kind(scheme)} has no path"
    if path and scheme in MEMCACHED:
        yield (
            f"{_url_kind(scheme)} has no path, because memcached has no databases: use a namespace for"
            " each program"
        )
    if path and scheme in REDIS and not _database(path):
        yield "the path must be the number of a database, as in redis://10.0.0.1:6379/0"


def _host_and_port(scheme: str, written: str) -> tuple[str, int | None]:
    """Return the host and port of `host`, `host:port`, `[v6]` or `[v6]:port`."""
    if scheme == MEMORY:  # a memory node's name, in any case and form
        if not written.isprintable():
            raise ConfigurationError("the name of a memory node must be printable")
        return written, None
    if is_local(scheme):
        if written:
            raise ConfigurationError(
                f"{_url_kind(scheme)} has no host: write the path of its socket after three slashes"
            )
        return "", None
    if not written:
        raise ConfigurationError(f"{_url_kind(scheme)} needs a host")
    if written.startswith("["):
        return _ipv6_and_port(written)
    host, separator, port = written.partition(":")
    if ":" in port:
        raise ConfigurationError("an IPv6 address must be in brackets, as in [::1]:11211")
    if not _hostname(host):
        raise ConfigurationError("a host is made of letters, digits, '.', '-' and '_'")
    return host.lower(), _number(port) if separator else None


def _ipv6_and_port(written: str) -> tuple[str, int | None]:
    match = _bracketed(written)
    if match is None:
        raise ConfigurationError(_BRACKETS)
    host = match[1].replace("%25", "%", 1).lower()  # a zone follows the sign (RFC 6874)
    if not _is_v6(host):
        raise ConfigurationError(_BRACKETS)
    return host, None if match[2] is None else _number(match[2])


_BRACKETS: Final = "brackets must hold an IPv6 address, as in [::1]:11211"


def _is_v6(host: str) -> bool:
    from ipaddress import AddressValueError, IPv6Address  # noqa: PLC0415 - few nodes have one

    try:
        IPv6Address(host)
    except AddressValueError:
        return False
    return True


def _number(port: str) -> int:
    if not _port(port) or not 0 < int(port) <= MAX_PORT:
        raise ConfigurationError(f"a port is a number from 1 to {MAX_PORT}")
    return int(port)


def _distinct(fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    repeated = [name for name, count in Counter(name for name, _ in fields).items() if count > 1]
    if repeated:
        raise ConfigurationError(
            *(f"option {redact(name)} of a URL is given more than once" for name in repeated)
        )
    return fields
