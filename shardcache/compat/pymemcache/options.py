"""What pymemcache's callers pass, in our terms: servers, times, tokens, and settings without effect here."""

from __future__ import annotations

import codecs
import socket
from collections.abc import Hashable
from typing import Any, Final
from urllib.parse import quote

from pymemcache.client.base import normalize_server_spec  # type: ignore[import-untyped]  # it has no types
from pymemcache.client.rendezvous import RendezvousHash  # type: ignore[import-untyped]  # as above
from pymemcache.exceptions import MemcacheIllegalInputError  # type: ignore[import-untyped]  # as above

from shardcache.backends.expiry import RELATIVE_LIMIT
from shardcache.backends.memcached.replies import CasToken
from shardcache.core.commands import COUNTER_MAX
from shardcache.core.lifetimes import ttl_of_any_length
from shardcache.core.placement.nodes import Node
from shardcache.core.timeouts import DEFAULT_CALL, TimeoutPolicy
from shardcache.errors import ConfigurationError

# The server knows its limit (`-I`), and pymemcache has none: this is the largest that memcached takes.
_NO_LIMIT: Final = f"max_value_bytes={1 << 30}"
_LAST_DATE: Final = 1 << 62  # a later one is as far away, and may not fit into a float
_CAS_BITS: Final = 64  # of a token; its incarnation stands above them

_SERVERS: Final = (
    "a server is (host, port), 'host', 'host:port', '[v6]:port' or the path of a Unix socket; for"
    " other nodes use shardcache.Client, which takes URLs"
)


def node_of(server: object, *, secure: bool) -> Node:
    """Return the node of a server, named by pymemcache's key of it; `secure` is whether it speaks TLS.

    >>> node_of("[::1]", secure=False)
    Node('memcached://[::1]:11211', name='::1:11211', weight=1)
    >>> node_of("unix:/run/memcached.sock", secure=False)
    Node('memcached+unix:///run/memcached.sock', name='/run/memcached.sock', weight=1)
    """
    if not isinstance(server, (str, tuple)) or "://" in str(server):
        raise ConfigurationError(_SERVERS)
    try:
        spec = normalize_server_spec(server)
        if isinstance(spec, str):
            return Node(f"memcached+unix://{quote(spec)}?{_NO_LIMIT}", name=spec)
        host, port = spec
        authority = f"[{host.replace('%', '%25')}]" if ":" in host else host
        scheme = "memcacheds" if secure else "memcached"
        return Node(f"{scheme}://{authority}:{int(port)}?{_NO_LIMIT}", name=f"{host}:{port}")
    except (ConfigurationError, TypeError, ValueError):
        raise ConfigurationError(_SERVERS) from None


def timeouts_of(timeout: float | None, connect_timeout: float | None) -> TimeoutPolicy:
    """Return how long calls and dials may take; raise `ConfigurationError` naming the parameter."""
    try:
        return TimeoutPolicy(DEFAULT_CALL if timeout is None else timeout, connect_timeout)
    except ConfigurationError as error:
        named = (
            f.replace("call:", "timeout:").replace("connect:", "connect_timeout:")
            for f in error.faults
        )
        raise ConfigurationError(*named) from None


def prefix_of(key_prefix: object) -> bytes:
    """Return the prefix of all names; raise `ConfigurationError` if it is not bytes or ASCII text."""
    if isinstance(key_prefix, str) and key_prefix.isascii():
        return key_prefix.encode()
    if isinstance(key_prefix, bytes):
        return key_prefix
    raise ConfigurationError("key_prefix must be bytes or ASCII text")


def check_encoding(encoding: str) -> None:
    """Raise `ConfigurationError` for an encoding that Python does not know."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigurationError("encoding: Python has none of this name") from None


def check_hasher(hasher: object) -> None:
    """Raise `ConfigurationError` for a hasher that places keys in another way than pymemcache's own."""
    if hasher is not RendezvousHash:
        raise ConfigurationError(
            "hasher: only pymemcache's default, RendezvousHash; for another placement use"
            " shardcache.Client(…, strategy=…), with a strategy of your own if need be"
        )


def check_socket_module(module: Any) -> None:  # a module, or whatever stands for one
    """Raise `ConfigurationError` for sockets that are not those of this process."""
    if getattr(module, "socket", None) is not socket.socket:
        raise ConfigurationError(
            "socket_module: shardcache uses the sockets of the process; leave it out, and for gevent"
            " call gevent.monkey.patch_all() at the start of the program"
        )


def check_integer(value: object, name: str) -> int:
    """Return a whole number; raise `MemcacheIllegalInputError`, as pymemcache does, for anything else."""
    if not isinstance(value, int):
        raise MemcacheIllegalInputError(f"{name} must be an int, not {type(value).__name__}")
    return value


def delta_of(value: object) -> int:
    """Return what is added to a counter; raise `MemcacheClientError` if it is not one."""
    delta = check_integer(value, "value")
    if not 0 <= delta <= COUNTER_MAX:
        raise MemcacheIllegalInputError(f"value must be from 0 to 2**63 - 1, not {delta}")
    return delta


def ttl_of(expire: object, now: float) -> float | None:
    """Return the ttl for memcached's number: 0 never expires, a negative one is past, a large one a date.

    >>> ttl_of(0, 1e9), ttl_of(-1, 1e9), ttl_of(60, 1e9), ttl_of(1_000_000_090, 1e9)
    (None, 0.0, 60.0, 90.0)
    """
    number = max(-1, min(check_integer(expire, "expire"), _LAST_DATE))
    if number == 0:
        return None
    seconds = float(number) if number <= RELATIVE_LIMIT else number - now
    return ttl_of_any_length(max(0.0, seconds))


def digits_of(token: Hashable) -> bytes:
    """Return a token as pymemcache's callers keep it: a number, as bytes; that of a stand-in is 0.

    No value on a server has the number 0.

    >>> token_of(digits_of(CasToken(7, incarnation=1)))
    CasToken(number=7, incarnation=1)
    """
    if not isinstance(token, CasToken):
        return b"0"
    return b"%d" % (token.incarnation << _CAS_BITS | token.number)


def token_of(cas: object) -> CasToken:
    """Return the token of a number as bytes, text or int; raise `MemcacheIllegalInputError` otherwise."""
    digits = str(cas).encode() if isinstance(cas, (int, str)) else cas
    if not isinstance(digits, bytes) or not digits.isdigit():
        raise MemcacheIllegalInputError("cas must be a number, as int, text or bytes")
    number = int(digits)
    return CasToken(number & ((1 << _CAS_BITS) - 1), number >> _CAS_BITS)
