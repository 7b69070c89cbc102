"""Each setting of a client: its check, and how it is written as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from shardcache.core.lifetimes import MAX_SECONDS, positive_seconds
from shardcache.core.numeric import whole
from shardcache.core.placement.nodes import Node
from shardcache.core.timeouts import MAX_TIMEOUT, OnError, OnOverflow, TimeoutPolicy
from shardcache.core.urls import split_url
from shardcache.core.values.other_clients import ReadUnsigned
from shardcache.errors import ConfigurationError
from shardcache.settings.gutter import read_failover
from shardcache.settings.nodes import CLIENT_FIELDS, node_list
from shardcache.settings.options import parse_options
from shardcache.settings.shadow import Shadow

if TYPE_CHECKING:  # loaded with the first node that speaks TLS
    import ssl

_whole = re.compile(r"[+-]?[0-9]{1,18}").fullmatch
_decimal = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?").fullmatch

REDLOCK: Final = "redlock"  # the name of the built-in lock provider

_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Parameter(NamedTuple):
    """One setting: `from_text` converts the text of a URL or variable, `read` checks a value.

    `read` raises `ConfigurationError` with faults that do not name the setting: the caller knows
    where the value came from. `from_text` returns what it cannot convert, for `read` to refuse.
    """

    read: Callable[[object], Any]  # each setting is of its own type
    from_text: Callable[[str], object] = str


def _number(text: str) -> object:
    if text.lower() == "none":
        return None
    if _whole(text):
        return int(text)
    return float(text) if _decimal(text) else text


def _name_with_options(value: object) -> str:
    text = _text(value)
    parse_options(text)
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"must be text, not {type(value).__name__}")
    return value


def _namespace(value: object) -> str:
    text = _text(value)
    if not text.isprintable():  # this excludes lone surrogates, which cannot be encoded
        raise ConfigurationError("must be printable text")
    return text


def _lifetime(value: object) -> float | None:
    return None if value is None else positive_seconds(value, MAX_SECONDS)


def _timeout(value: object) -> TimeoutPolicy:
    if isinstance(value, TimeoutPolicy):
        return value
    return TimeoutPolicy(call=positive_seconds(value, MAX_TIMEOUT))


def _locks(value: object) -> str:
    text = _text(value)
    if text.lower() == REDLOCK:
        return REDLOCK
    if "://" not in text:
        raise ConfigurationError(
            "must be 'redlock', or the URL of a service as zookeeper://h1:2181,h2:2181,h3:2181/shop"
        )
    split_url(text)
    return text


def _lock_nodes(value: object) -> tuple[Node, ...] | None:
    return None if value is None else node_list(value)


def _connect_timeout(value: object) -> float | None:
    return None if value is None else positive_seconds(value, MAX_TIMEOUT)


def _pool_size(value: object) -> int:
    size = whole(value)
    if size is None:
        raise ConfigurationError("must be a whole number")
    if size < 1:
        raise ConfigurationError("must be at least 1")
    return size


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError("must be true or false")
    return value


def _unsigned(value: object) -> ReadUnsigned:
    if isinstance(value, bool):
        return value
    if value == "plain":
        return "plain"
    raise ConfigurationError("must be true, false or 'plain'")


def true_or_false(text: str) -> object:
    """Return the truth value of a text; the text itself if it is none."""
    return _FLAGS.get(text.lower(), text)


def _one_of(choices: Iterable[str]) -> Callable[[object], str]:
    names = tuple(choices)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            known = ", ".join(names)
            raise ConfigurationError(f"no such choice (known: {known})")
        return value

    return read


def _secret(value: object) -> tuple[bytes, ...] | None:
    """Return the secrets as bytes; the first of several signs. No fault quotes a secret."""
    if value is None:
        return None
    secrets = (value,) if isinstance(value, (str, bytes)) else value
    if not isinstance(secrets, (list, tuple)):
        raise ConfigurationError("must be text or bytes, or a list of these")
    if not secrets or not all(isinstance(one, (str, bytes)) and one for one in secrets):
        raise ConfigurationError("must be text or bytes that are not empty, or a list of these")
    return tuple(one if isinstance(one, bytes) else _encode_secret(one) for one in secrets)


def _encode_secret(secret: str) -> bytes:
    if not secret.isprintable():  # this excludes lone surrogates, which cannot be encoded
        raise ConfigurationError("must be printable if it is text (bytes may be any)")
    if secret != secret.strip():  # an environment variable could not hold it
        raise ConfigurationError("must not begin or end with a blank if it is text")
    return secret.encode()


def _secrets(text: str) -> object:
    """Return the secrets in a text, one on each line: a secret that is text holds no line end."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ssl_context(value: object) -> ssl.SSLContext | None:
    """Return the TLS context, which must be one for clients."""
    if value is None:
        return None
    import ssl  # noqa: PLC0415 - most programs have no such context

    if not isinstance(value, ssl.SSLContext):
        raise ConfigurationError(
            f"must be an ssl.SSLContext, which only code can make, not {type(value).__name__}"
        )
    if value.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError("is for servers; make one with ssl.create_default_context()")
    return value


def _shadow(value: object) -> Shadow | None:
    if value is not None and not isinstance(value, Shadow):
        raise ConfigurationError(
            f"must be a shardcache.Shadow, which only code can make, not {type(value).__name__}"
        )
    return value


PARAMETERS: Final = {
    "nodes": Parameter(node_list),
    "strategy": Parameter(_name_with_options),
    "codec": Parameter(_name_with_options),
    "secret": Parameter(_secret, _secrets),
    "read_unsigned": Parameter(_unsigned, true_or_false),
    "read_compressed": Parameter(_flag, true_or_false),
    "namespace": Parameter(_namespace),
    "default_ttl": Parameter(_lifetime, _number),
    "timeout": Parameter(_timeout, _number),
    "connect_timeout": Parameter(_connect_timeout, _number),
    "on_error": Parameter(_one_of(get_args(OnError))),
    "on_overflow": Parameter(_one_of(get_args(OnOverflow))),
    "failover": Parameter(read_failover),
    "pool_size": Parameter(_pool_size, _number),
    "clearable": Parameter(_flag, true_or_false),
    "locks": Parameter(_locks),
    "lock_nodes": Parameter(_lock_nodes),
    "ssl_context": Parameter(_ssl_context),
    "shadow": Parameter(_shadow),
}

# Nodes come from `SHARDCACHE_URL`. A secret does not belong in a URL, because people show URLs to
# each other. Neither do the URLs of locks and lock nodes, which cannot stand in another URL's query.
FROM_ENVIRONMENT: Final = ("secret", "locks", "lock_nodes", *CLIENT_FIELDS)
