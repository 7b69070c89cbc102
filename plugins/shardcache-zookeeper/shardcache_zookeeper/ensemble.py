"""Which ensemble keeps the locks, and under which paths: read from the URL."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from shardcache.core.lock_providers import LockScope, NamedLock
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import Parts, parse_fields, split_url, unquote
from shardcache.errors import ConfigurationError

PORT: Final = "2181"
LAST_PORT: Final = 65_535
ROOT: Final = "/shardcache"
SESSION_TIMEOUT: Final = 5.0  # seconds: no longer than the ttl of a cached function's lock
MAX_SESSION_TIMEOUT: Final = 3600.0
OPTION: Final = "session_timeout"

GUID_LENGTH: Final = 32  # hex digits
_is_holder = re.compile(r"[0-9a-f]{32}-(?:[0-9]{10}|-[0-9]{9,10})").fullmatch


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The servers of an ensemble, and what this process asks of them.

    `hosts` are `host:port`, separated by commas. All locks are below the path `root`. `credentials`
    are `user:password` of ZooKeeper's scheme `digest`. `session_timeout` is in seconds.
    """

    hosts: str
    root: str = ROOT
    session_timeout: float = SESSION_TIMEOUT
    credentials: str | None = field(default=None, repr=False)

    def folder(self, scope: LockScope) -> str:
        """Return the path below which the locks of a scope are."""
        return f"{self.root}/{scope.value}"

    def directory(self, lock: NamedLock) -> str:
        """Return the path of a lock; its child is the node of its holder.

        ZooKeeper takes neither a slash in a name, nor the names `.` and `..`, nor some characters.
        """
        return f"{self.folder(lock.scope)}/{quote(lock.name, safe='').replace('.', '%2E')}"

    def __str__(self) -> str:
        return f"zookeeper://{self.hosts}{self.root}"


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
def parse_url(url: str) -> Ensemble:
    """Read a URL such as `zookeeper://user:password@h1,h2:2182/shop?session_timeout=5`.

    Raise `ConfigurationError` that lists every fault, and quotes nothing of the URL but option names.

    >>> parse_url("zookeeper://h1,h2:2182/shop").hosts
    'h1:2181,h2:2182'
    """
    parts = split_url(url)
    faults: list[str] = []
    hosts = [_host(host, faults) for host in parts.hosts]
    root = _root(parts, faults)
    timeout = _session_timeout(parts, faults)
    credentials = _credentials(parts, faults)
    if faults:
        raise ConfigurationError(*(f"locks: {fault}" for fault in faults))
    return Ensemble(",".join(hosts), root, timeout, credentials)


def _host(text: str, faults: list[str]) -> str:
    """Return `host:port`; the host may be an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, PORT
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


def _session_timeout(parts: Parts, faults: list[str]) -> float:
    values: dict[str, str] = {}
    for name, value in parse_fields(parts.fields):
        if name in values:
            faults.append(f"option {name!r} is given twice")
        elif name != OPTION:
            faults.append(f"no such option (known: {OPTION})")
        values[name] = value
    text = values.get(OPTION, str(SESSION_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SESSION_TIMEOUT:
        faults.append(f"{OPTION} must be seconds above 0, up to {MAX_SESSION_TIMEOUT:g}")
    return seconds


def _credentials(parts: Parts, faults: list[str]) -> str | None:
    if parts.user is None:
        return None
    user, colon, password = parts.user.partition(":")
    if not (user and colon and password):
        faults.append("credentials are user:password, before the '@'")
    return f"{unquote(user)}:{unquote(password)}"
