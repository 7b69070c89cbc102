"""The settings of a cache's client: from its URL and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from shardcache import ConfigurationError
from shardcache.core.secrecy import takes_secrets
from shardcache.settings import adapters

Url: TypeAlias = "str | Sequence[str]"

# What a client takes besides its nodes, and what the cache itself takes.
OPTIONS: Final = adapters.OPTIONS - {"default_ttl"}
OWN_OPTIONS: Final = {"client", "default_timeout", "ignore_delete_many_errors", "key_prefix"}


@takes_secrets
def merge_settings(url: Url | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client: the nodes and settings of `url`, one or several, and `options`.

    An option overrides the same setting of a URL. By default the client can be cleared, and its codec is
    `pickle` if there is a secret. Raise `ConfigurationError` listing what is known for an unknown
    option.
    """
    if not url:
        raise ConfigurationError(
            "url: is missing; write a URL such as memcached://10.0.0.1,10.0.0.2, or a list of them"
        )
    unknown = sorted(options.keys() - OPTIONS)
    if unknown:
        known = ", ".join(sorted(OPTIONS | OWN_OPTIONS))
        raise ConfigurationError(
            *(f"no such option: {name!r} (known: {known})" for name in unknown)
        )
    merged = adapters.merge_arguments(url, options)
    if "default_ttl" in merged:
        raise ConfigurationError("url: has default_ttl=; the cache has default_timeout instead")
    namespace = adapters.checked("namespace", merged.get("namespace", ""))
    return {"clearable": True, "secret": None, **merged, "namespace": namespace}
