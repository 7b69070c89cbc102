"""The client of a backend: from a URL and other arguments, or one that the program has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardcache import Client, ConfigurationError
from shardcache.core.secrecy import takes_secrets
from shardcache.settings.adapters import OPTIONS, merge_arguments


@takes_secrets
def build_client(arguments: Mapping[str, Any]) -> Client:
    """Return a client of the nodes of `url`, one or several, or a view of `client`.

    An argument overrides the same setting of a URL. With a secret the codec is `pickle`, unless the
    arguments name one. Raise `ConfigurationError` listing every fault.
    """
    client = arguments.get("client")
    url = arguments.get("url")
    if (client is None) == (not url):
        raise ConfigurationError(
            "arguments: give a url such as memcached://10.0.0.1,10.0.0.2 (or a list), or a client"
        )
    given = {name: arguments[name] for name in OPTIONS & arguments.keys()}
    if client is None:
        return Client(**merge_arguments(url, given))
    if not isinstance(client, Client):
        raise ConfigurationError(
            f"client: must be a shardcache.Client, not {type(client).__name__}"
        )
    if given:
        raise ConfigurationError(*(f"{name}: is set in the client" for name in sorted(given)))
    return client.view()
