"""Which ensemble keeps the locks, and under which paths: read from the URL."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from shardcache.backends.transport.tls import TLS_OPTIONS, build_context
from shardcache.core.lock_providers import LockScope, NamedLock
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import Parts, parse_fields, split_url, unquote
from shardcache.errors import ConfigurationError

SECURE_SCHEME: Final = "zookeepers"
PORT: Final = "2181"
SECURE_PORT: Final = "2281"  # as in ZooKeeper's own documents
LAST_PORT: Final = 65_535
ROOT: Final = "/shardcache"
SESSION_TIMEOUT: Final = 5.0  # seconds: no longer than the ttl of a cached function's lock
MAX_SESSION_TIMEOUT: Final = 3600.0
TIMEOUT_OPTION: Final = "session_timeout"
AUTH_OPTION: Final = "auth"
AUTHS: Final = ("digest", "sasl")

GUID_LENGTH: Final = 32  # hex digits
_is_holder = re.compile(r"[0-9a-f]{32}-(?:[0-9]{10}|-[0-9]{9,10})").fullmatch


class Credentials(NamedTuple):
    """Who a process is to the servers: by ZooKeeper's scheme `digest`, or by SASL's DIGEST-MD5."""

    user: str
    password: str
    auth: str = "digest"


@dataclass(frozen=True, slots=True)
class Tls:
    """How the servers are verified: as `options` of the URL say, or by the client's own `given` context.

    Two are equal if they say the same, although each has a `context` of its own.
    """

    options: tuple[tuple[str, str], ...]
    given: ssl.SSLContext | None
    context: ssl.SSLContext = field(compare=False)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The servers of an ensemble, and what this process asks of them.

    `hosts` are `host:port`, separated by commas. All locks are below the path `root`.
    `session_timeout` is in seconds.
    """

    hosts: str
    root: str = ROOT
    session_timeout: float = SESSION_TIMEOUT
    credentials: Credentials | None = field(default=None, repr=False)
    tls: Tls | None = field(default=None, repr=False)

    def folder(self, scope: LockScope) -> str:
        """Return the path below which the locks of a scope are."""
        return f"{self.root}/{scope.value}"

    def directory(self, lock: NamedLock) -> str:
        """Return the path of a lock; its child is the node of its holder.

        ZooKeeper takes neither a slash in a name, nor the names `.` and `..`, nor some characters.
        """
        return f"{self.folder(lock.scope)}/{quote(lock.name, safe='').replace('.', '%2E')}"

    def __str__(self) -> str:
        return f"{'zookeepers' if self.tls else 'zookeeper'}://{self.hosts}{self.root}"


def lock_name(directory: str) -> bytes:
    """Return the name of the lock with this path, or with the last part of it.

    >>> lock_name("/shop/lock/a%2Fb")
    b'a/b'
    """
    return unquote_to_bytes(directory.rpartition("/")[2])


def holders_among(names: Iterable[str]) -> list[str]:
    """Return the names of holders' nodes: a guid and a number. Those of other programs are ignored."""
    return [name for name in names if _is_holder(name)]


def first(names: Iterable[str]) -> str:
    """Return the node that was created first: by its number, which wraps at 32 bits.

    >>> first(["b" * 32 + "-0000000002", "a" * 32 + "-0000000010"])[-10:]
    '0000000002'
    >>> first(["b" * 32 + "--2147483648", "a" * 32 + "-2147483647"])[-10:]
    '2147483647'
    """
    named = {int(name[GUID_LENGTH + 1 :]): name for name in holders_among(names)}
    return next(
        name
        for number, name in named.items()
        if all((other - number) % 2**32 < 2**31 for other in named)
    )


def is_the_first(path: str, names: Iterable[str]) -> bool:
    """Return whether the node of a path is the first one of its directory, and is there at all."""
    holders = holders_among(names)
    return bool(holders) and first(holders) == path.rpartition("/")[2]


@takes_secrets
def parse_url(url: str, ssl_context: ssl.SSLContext | None = None) -> Ensemble:
    """Read a URL such as `zookeeper://user:password@h1,h2:2182/shop?session_timeout=5`.

    With the scheme `zookeepers` the servers are asked over TLS: by `ssl_context`, the client's, or by the
    options of the URL that nodes have as well. Raise `ConfigurationError` that lists every fault, and
    quotes nothing of the URL but option names.

    >>> parse_url("zookeeper://h1,h2:2182/shop").hosts
    'h1:2181,h2:2182'
    """
    parts = split_url(url)
    is_secure = parts.scheme == SECURE_SCHEME
    faults: list[str] = []
    hosts = [_host(host, SECURE_PORT if is_secure else PORT, faults) for host in parts.hosts]
    root = _root(parts, faults)
    options = _options(parts, TLS_OPTIONS if is_secure else (), faults)
    timeout = _session_timeout(options, faults)
    credentials = _credentials(parts, options, faults)
    tls = _tls(options, ssl_context, faults) if is_secure else None
    if faults:
        raise ConfigurationError(*(f"locks: {fault}" for fault in faults))
    return Ensemble(",".join(hosts), root, timeout, credentials, tls)


def _host(text: str, usual_port: str, faults: list[str]) -> str:
    """Return `host:port`; the host may be an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, usual_port
    if not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        faults.append("each server is host or host:port, an IPv6 address in brackets")
    elif not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= LAST_PORT):
        faults.append(f"a server's port must be a number from 1 to {LAST_PORT}")
    return f"{host}:{port}"


def _root(parts: Parts, faults: list[str]) -> str:
    names = unquote(parts.path.strip("/")).split("/")
    if names == [""]:
        return ROOT
    if names[0] == "zookeeper" or any(
        name in {"", ".", ".."} or not name.isprintable() for name in names
    ):
        faults.append(
            "the path holds names that ZooKeeper does not take: '.', '..', empty or unprintable"
            " ones, or 'zookeeper' as the first"
        )
    return "/" + "/".join(names)


def _options(parts: Parts, tls_options: tuple[str, ...], faults: list[str]) -> dict[str, str]:
    known = (TIMEOUT_OPTION, AUTH_OPTION, *tls_options)
    options: dict[str, str] = {}
    for name, value in parse_fields(parts.fields):
        if name in options:
            faults.append(f"option {name!r} is given twice")
        elif name in TLS_OPTIONS and name not in known:
            faults.append(f"{name} is for the scheme {SECURE_SCHEME}://, which uses TLS")
        elif name not in known:
            faults.append(f"no such option (known: {', '.join(known)})")
        options[name] = value
    return options


def _session_timeout(options: Mapping[str, str], faults: list[str]) -> float:
    text = options.get(TIMEOUT_OPTION, str(SESSION_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SESSION_TIMEOUT:
        faults.append(f"{TIMEOUT_OPTION} must be seconds above 0, up to {MAX_SESSION_TIMEOUT:g}")
    return seconds


def _credentials(parts: Parts, options: Mapping[str, str], faults: list[str]) -> Credentials | None:
    auth = options.get(AUTH_OPTION, AUTHS[0])
    if auth not in AUTHS:
        faults.append(f"{AUTH_OPTION} must be {' or '.join(AUTHS)}")
    elif AUTH_OPTION in options and parts.user is None:
        faults.append(f"{AUTH_OPTION}={auth} needs credentials: user:password, before the '@'")
    if auth == "sasl" and find_spec("puresasl") is None:
        faults.append(
            "auth=sasl needs the package pure-sasl: pip install"
            " './plugins/shardcache-zookeeper[sasl]' in a clone"
        )
    if parts.user is None:
        return None
    user, colon, password = parts.user.partition(":")
    if not (user and colon and password):
        faults.append("credentials are user:password, before the '@'")
    return Credentials(unquote(user), unquote(password), auth)


def _tls(options: Mapping[str, str], given: ssl.SSLContext | None, faults: list[str]) -> Tls | None:
    chosen = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    try:
        context = build_context(chosen, given)
    except ConfigurationError as error:
        faults += error.faults
        return None
    return Tls(tuple(sorted(chosen.items())), given, context)
