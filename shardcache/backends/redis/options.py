"""What the URL of a Redis node asks for, read as redis-py reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from redis.connection import parse_url
from redis.credentials import UsernamePasswordCredentialProvider

from shardcache.backends.transport.tls import TLS_OPTIONS
from shardcache.core.placement.nodes import Node, is_local
from shardcache.core.placement.url_warnings import DECIDED_BY_CLIENT
from shardcache.core.secrecy import takes_secrets
from shardcache.core.urls import redact, split_url
from shardcache.errors import ConfigurationError

MAX_VALUE_BYTES: Final = 512 * 1024 * 1024  # Redis's own limit, unless it is configured

_is_count = re.compile(r"[0-9]{1,15}").fullmatch
_is_name = re.compile(r"[!-~]*").fullmatch  # what CLIENT SETNAME takes

OURS: Final = ("client_name", "db", "max_value_bytes", "password", "username")


class Credentials(Protocol):
    """What knows how to log in, such as any of redis-py's credential providers.

    It is asked as each connection opens, so that passwords can change, and must not block.
    """

    def get_credentials(self) -> tuple[str, ...]:
        """Give the arguments of `AUTH`: a password, or a user and a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """How each connection to a node begins, and the largest value that is sent there."""

    db: int = 0
    client_name: str = ""
    max_value_bytes: int = MAX_VALUE_BYTES
    credentials: Credentials | None = field(default=None, repr=False)
    bare_bytes: bool = False  # store bytes and text as they are, for other programs
    bare_json: bool = False  # what stands without a header is JSON

    def greeting(self) -> list[tuple[str, ...]]:
        """Give the commands that a new connection begins with, each of which is answered `OK`."""
        words: list[tuple[str, ...]] = []
        if self.credentials is not None:
            words.append(("AUTH", *self.credentials.get_credentials()))
        if self.db:
            words.append(("SELECT", str(self.db)))
        if self.client_name:
            words.append(("CLIENT", "SETNAME", self.client_name))
        return words


@takes_secrets
def read_options(
    node: Node,
    credentials: Credentials | None = None,
    *,
    bare_bytes: bool = False,
    bare_json: bool = False,
) -> RedisOptions:
    """Read the URL of a node; raise `ConfigurationError` listing every fault.

    `credentials` take the place of the URL's user and password.
    """
    given = _parsed(node)
    faults = [f"node {node.name}: {fault}" for fault in _faults(node, given)]
    if faults:
        raise ConfigurationError(*faults)
    return RedisOptions(
        db=given.get("db", 0),
        client_name=given.get("client_name", ""),
        max_value_bytes=int(given.get("max_value_bytes", MAX_VALUE_BYTES)),
        credentials=credentials or _credentials(given),
        bare_bytes=bare_bytes,
        bare_json=bare_json,
    )


def _parsed(node: Node) -> dict[str, Any]:  # each option has a type of its own
    """Give what redis-py understands of the URL, but for TLS, which it would write in another way."""
    parts = split_url(node.url)
    scheme = "unix" if is_local(parts.scheme) else parts.scheme
    fields = (field for field in parts.fields if field.partition("=")[0] not in TLS_OPTIONS)
    url = replace(parts, scheme=scheme).alone(parts.hosts[0], tuple(fields))
    try:
        return dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py's own
    except ValueError as error:  # names the option, and nothing else of the URL
        fault = str(error).lower()
    # Raised out here: the frames of redis-py's traceback hold the password.
    raise ConfigurationError(f"node {node.name}: {fault}")


def _faults(node: Node, given: Mapping[str, Any]) -> Iterator[str]:
    known = (*OURS, *TLS_OPTIONS) if node.address.scheme == "rediss" else OURS
    for name, _ in node.address.options:
        if name not in known and name not in DECIDED_BY_CLIENT:
            yield f"no option {redact(name)} (known: {', '.join(known)})"
    yield from _given_twice(node)
    if given.get("db", 0) < 0:
        yield "db must be a number from 0"
    size = given.get("max_value_bytes", "1")
    if not _is_count(size) or int(size) < 1:
        yield "max_value_bytes must be a whole number above zero"
    if not _is_name(given.get("client_name", "")):
        yield "client_name must be of printable ASCII, without blanks"


def _given_twice(node: Node) -> Iterator[str]:
    """Return what stands both before the query and in it: one of the two would be ignored."""
    address = node.address
    named = dict(address.options)
    if address.path and not is_local(address.scheme) and "db" in named:
        yield "its database is given twice, behind the port and as db"
    if address.username and "username" in named:
        yield "its user is given twice, before the host and as username"
    if address.password and "password" in named:
        yield "its password is given twice, before the host and as password"


def _credentials(given: Mapping[str, Any]) -> Credentials | None:
    username, password = given.get("username"), given.get("password")
    if not (username or password):
        return None
    return UsernamePasswordCredentialProvider(username, password)
