"""The options in the URL of a Redis node, parsed as redis-py parses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from redis.connection import parse_url
from redis.credentials import UsernamePasswordCredentialProvider

from shardcache.backends.transport.tls import TLS_OPTIONS
from shardcache.core.placement.nodes import Node, is_local
from shardcache.core.placement.url_warnings import DECIDED_BY_CLIENT
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import redact
from shardcache.errors import ConfigurationError

MAX_VALUE_BYTES: Final = 512 * 1024 * 1024  # Redis's own limit, unless it is configured

_is_count = re.compile(r"[0-9]{1,15}").fullmatch
_is_name = re.compile(r"[!-~]*").fullmatch  # as CLIENT SETNAME accepts

OURS: Final = ("client_name", "db", "max_value_bytes", "password", "username")


class Credentials(Protocol):
    """A source of credentials, such as a credential provider of redis-py.

    It is asked for each new connection, so that passwords can change, and must not block.
    """

    def get_credentials(self) -> tuple[str, ...]:
        """Return the arguments of `AUTH`: a password, or a user and a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """How each connection to a node begins, and the largest value that is sent."""

    db: int = 0
    client_name: str = ""
    max_value_bytes: int = MAX_VALUE_BYTES
    credentials: Credentials | None = field(default=None, repr=False)
    bare_bytes: bool = False  # store bytes and text bare, for other programs
    bare_json: bool = False  # values without a header are JSON

    def greeting(self) -> list[tuple[str, ...]]:
        """Return the commands that begin a connection; the server answers each with `OK`."""
        words: list[tuple[str, ...]] = []
        if self.credentials is not None:
            words.append(("AUTH", *self.credentials.get_credentials()))
        if self.db:
            words.append(("SELECT", str(self.db)))
        if self.client_name:
            words.append(("CLIENT", "SETNAME", self.client_name))
        return words


def is_secure(scheme: str) -> bool:
    """Return whether a scheme means TLS.

    >>> is_secure("rediss"), is_secure("rediss+mine"), is_secure("redis+mine")
    (True, True, False)
    """
    return scheme.partition("+")[0] == "rediss"


@takes_secrets
def read_options(
    node: Node,
    credentials: Credentials | None = None,
    *,
    bare_bytes: bool = False,
    bare_json: bool = False,
) -> RedisOptions:
    """Parse the URL of a node; raise `ConfigurationError` listing every fault.

    `credentials` replace the user and password of the URL.
    """
    parsed = _parse(node)
    faults = [f"node {node.name}: {fault}" for fault in _faults(node, parsed)]
    if faults:
        raise ConfigurationError(*faults)
    return RedisOptions(
        db=parsed.get("db", 0),
        client_name=parsed.get("client_name", ""),
        max_value_bytes=int(parsed.get("max_value_bytes", MAX_VALUE_BYTES)),
        credentials=credentials or _credentials(parsed),
        bare_bytes=bare_bytes,
        bare_json=bare_json,
    )


def _parse(node: Node) -> dict[str, Any]:  # each option has its own type
    """Return the options that redis-py parses, except for TLS, which `transport.tls` parses."""
    address = node.address
    database = "" if is_local(address.scheme) else f"/{quote(address.path)}"
    options = [option for option in address.options if option[0] not in TLS_OPTIONS]
    try:
        parsed = parse_url(f"redis://{database}?{urlencode(options)}")  # type: ignore[no-untyped-call]
    except ValueError as error:  # it names the option, and nothing else of the URL
        fault = str(error).lower()
    else:
        named = {"username": address.username, "password": address.password}
        return {**parsed, **{name: text for name, text in named.items() if text}}
    # Raised outside the handler: the frames of redis-py's traceback contain the options.
    raise ConfigurationError(f"node {node.name}: {fault}")


def _faults(node: Node, parsed: Mapping[str, Any]) -> Iterator[str]:
    known = (*OURS, *TLS_OPTIONS) if is_secure(node.address.scheme) else OURS
    for name, _ in node.address.options:
        if name not in known and name not in DECIDED_BY_CLIENT:
            yield f"no option {redact(name)} (known: {', '.join(known)})"
    yield from _duplicates(node)
    if parsed.get("db", 0) < 0:
        yield "db must be a number from 0"
    size = parsed.get("max_value_bytes", "1")
    if not _is_count(size) or int(size) < 1:
        yield "max_value_bytes must be a whole number above zero"
    if not _is_name(parsed.get("client_name", "")):
        yield "client_name must be printable ASCII without blanks"


def _duplicates(node: Node) -> Iterator[str]:
    """Return a fault for each option given both before the query and in it: one would be ignored."""
    address = node.address
    named = dict(address.options)
    if address.path and not is_local(address.scheme) and "db" in named:
        yield "its database is given twice, after the port and as db"
    if address.username and "username" in named:
        yield "its user is given twice, before the host and as username"
    if address.password and "password" in named:
        yield "its password is given twice, before the host and as password"


def _credentials(parsed: Mapping[str, Any]) -> Credentials | None:
    username, password = parsed.get("username"), parsed.get("password")
    if not (username or password):
        return None
    return UsernamePasswordCredentialProvider(username, password)
