"""The arguments of a client, as the adapters of frameworks collect them from URLs and options."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from shardcache.core.secrecy import takes_secrets
from shardcache.core.values.signing import MIN_SECRET
from shardcache.errors import ConfigurationError
from shardcache.settings.faults import Faults
from shardcache.settings.nodes import parse_nodes
from shardcache.settings.parameters import PARAMETERS
from shardcache.settings.settings import Settings

OPTIONS: Final = {*PARAMETERS, "observers"} - {"nodes"}  # what a client takes besides its nodes

log = logging.getLogger("shardcache")

# Settings are of many types, and options of any, hence `Any`.


@takes_secrets
def merge_arguments(url: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client: those that `url`, one or several, names, and `options`.

    An option overrides the same setting of a URL. With a secret the codec is `pickle`, unless one is
    named; a secret may be short. Raise `ConfigurationError` listing every fault.
    """
    merged = with_long_secrets(with_timeouts({**read_urls(several_urls(url)), **options}))
    if merged.get("secret") is not None:
        merged.setdefault("codec", "pickle")
    return merged


@takes_secrets
def with_long_secrets(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments whose secrets a client takes: it refuses short ones, so these are derived.

    Log each time that one is short. Raise `ConfigurationError` for a secret that is none.
    """
    secrets = checked("secret", arguments.get("secret"))
    if secrets is None:
        return arguments
    warn_of_short_secrets("secret", secrets)
    long = [one if len(one) >= MIN_SECRET else derive_secret(one) for one in secrets]
    return {**arguments, "secret": long}


@takes_secrets
def warn_of_short_secrets(name: str, secrets: Iterable[str | bytes]) -> None:
    """Log that one of several secrets is short; `name` is where it is set, as `SECRET_KEY`."""
    if any(len(one) < MIN_SECRET for one in secrets):
        log.warning(
            "%s: shorter than %d bytes: who can read a stored value can guess it, and plant values;"
            " take a longer one",
            name,
            MIN_SECRET,
        )


def several_urls(url: object) -> Sequence[str]:
    """Return one URL or several as a sequence; raise `ConfigurationError` for anything else."""
    if isinstance(url, str):
        return [url]
    if isinstance(url, (list, tuple)):
        return url
    raise ConfigurationError(f"url: must be a URL or a list of URLs, not {type(url).__name__}")


def read_urls(urls: Sequence[str]) -> dict[str, Any]:
    """Return the nodes of several URLs and the settings in their queries, without defaults.

    >>> read_urls(["memory://a?timeout=2", "memory://b"])["timeout"].call
    2.0
    """
    settings = Settings.from_urls(urls)
    names = {name for url in urls for name in parse_nodes(url)[1]}
    if "connect_timeout" in names:  # a part of `Settings.timeout`
        names = names - {"connect_timeout"} | {"timeout"}
    return {name: getattr(settings, name) for name in ("nodes", *names)}


def with_timeouts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with `connect_timeout` as a part of `timeout`, as a client takes it."""
    timing = {name: arguments[name] for name in ("timeout", "connect_timeout") if name in arguments}
    if "connect_timeout" not in timing:
        return arguments
    others = {name: value for name, value in arguments.items() if name not in timing}
    return {**others, "timeout": Settings.of(nodes=arguments["nodes"], **timing).timeout}


def checked(name: str, value: object) -> Any:
    """Return the value of a setting as a client takes it; raise `ConfigurationError` naming it."""
    faults = Faults()
    result = None
    with faults.of(name):
        result = PARAMETERS[name].read(value)
    faults.report()
    return result


def derive_secret(secret: str | bytes) -> bytes:
    """Return a secret for signatures from one that an application has for other purposes as well."""
    raw = secret.encode() if isinstance(secret, str) else secret
    return sha256(b"shardcache:" + raw).digest()
