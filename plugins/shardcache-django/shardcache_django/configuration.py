"""From `LOCATION`, `OPTIONS` and `SECRET_KEY` of Django's settings to the arguments of a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils.encoding import force_bytes

from shardcache import ConfigurationError
from shardcache.settings import node_list
from shardcache.settings.adapters import (
    OPTIONS,
    derive_secret,
    read_urls,
    warn_of_short_secrets,
    with_long_secrets,
    with_timeouts,
)
from shardcache.settings.faults import Faults, unknown

# Any object can be cached, as with Django's own backends: a pickle, which is read only if it is signed.
# The text and the numbers that another client stored are read as well.
DEFAULTS: Final[Mapping[str, Any]] = {"codec": "pickle", "read_unsigned": "plain"}

_EVICTION: Final = "memcached and Redis evict by themselves: set the memory of the servers"

# What belongs elsewhere, and where.
ELSEWHERE: Final = {
    "nodes": "LOCATION names the nodes",
    "default_ttl": "write TIMEOUT, next to OPTIONS",
    "MAX_ENTRIES": _EVICTION,
    "CULL_FREQUENCY": _EVICTION,
}
KNOWN: Final = OPTIONS - {*ELSEWHERE}

_NO_NODES: Final = "names no nodes: write URLs, as memcached://10.0.0.1,10.0.0.2"
_MEMORY: Final = (
    "a memory:// node would keep what sync and async code store apart, and each process its own: use"
    " django.core.cache.backends.locmem.LocMemCache for development and tests"
)

# Options are of many types, hence `Any`.


def client_arguments(location: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client; those in `OPTIONS` override those in the URLs of `LOCATION`.

    Raise `ConfigurationError` listing every fault.
    """
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"OPTIONS: must be a dict, not {type(options).__name__}")
    faults = Faults()
    given: dict[str, Any] = {}
    with faults.of("LOCATION"):
        given = _read_location(location)
    for name in options:
        with faults.of(f"OPTIONS: {name}"):
            _check_option(name)
    faults.report()
    arguments = {**DEFAULTS, **given, **options}
    if "secret" not in arguments:
        arguments["secret"] = derive_secrets()
        warn_of_short_secrets("SECRET_KEY", [django_settings.SECRET_KEY])
        warn_of_short_secrets("SECRET_KEY_FALLBACKS", _fallbacks())
    return with_long_secrets(with_timeouts(arguments))


def derive_secrets() -> list[bytes]:
    """Return a secret for `SECRET_KEY`, with which values are signed, and for each of its fallbacks.

    Everybody knows the secret of an empty fallback, and could plant pickles with it: there is none.
    """
    return [derive_secret(force_bytes(key)) for key in (django_settings.SECRET_KEY, *_fallbacks())]


def _fallbacks() -> list[Any]:  # as Django takes them
    return [key for key in django_settings.SECRET_KEY_FALLBACKS if key]


def _read_location(location: object) -> dict[str, Any]:
    """Return the nodes of `LOCATION`, and the settings in the queries of its URLs."""
    if not isinstance(location, (str, list, tuple)):
        raise ConfigurationError(f"must be a list of URLs, not {type(location).__name__}")
    entries = location.split() if isinstance(location, str) else location
    if not entries:
        raise ConfigurationError(_NO_NODES)
    if all(isinstance(entry, str) for entry in entries):
        given = _read_urls(entries)
    else:
        given = {"nodes": node_list(entries)}
    if any(node.address.scheme == "memory" for node in given["nodes"]):
        raise ConfigurationError(_MEMORY)
    return given


def _read_urls(urls: Sequence[str]) -> dict[str, Any]:
    """Return what several URLs say, and nothing that they leave to defaults."""
    given = read_urls(urls)
    if "default_ttl" in given:
        raise ConfigurationError(f"?default_ttl=: {ELSEWHERE['default_ttl']}")
    return given


def _check_option(name: object) -> None:
    if name in ELSEWHERE:
        raise ConfigurationError(ELSEWHERE[str(name)])
    if name not in KNOWN:
        raise unknown(name, KNOWN)
