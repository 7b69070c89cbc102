"""The client of a backend: from a URL and other arguments, with a codec for any object if it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from shardcache import Client, ConfigurationError, Settings
from shardcache.core.secrecy import takes_secrets
from shardcache.core.values.signing import MIN_SECRET

SETTINGS: Final = {field.name for field in fields(Settings)} - {"nodes"} | {"observers"}


@takes_secrets
def build_client(arguments: Mapping[str, Any]) -> Client:
    """Return a client of the nodes of `url`, one or several, or a view of `client`.

    An argument overrides the same setting of a URL. With a secret the codec is `pickle`, unless the
    arguments name one. Raise `ConfigurationError` listing every fault.
    """
    client: Client | None = arguments.get("client")
    url = arguments.get("url")
    if (client is None) == (not url):
        raise ConfigurationError(
            "arguments: give a url such as memcached://10.0.0.1,10.0.0.2 (or a list), or a client"
        )
    given = {name: arguments[name] for name in SETTINGS & arguments.keys()}
    if client is not None:
        if given:
            raise ConfigurationError(*(f"{name}: is set in the client" for name in sorted(given)))
        return client.view()
    urls = _several(url)
    settings = Settings.from_urls(urls)
    merged = {field.name: getattr(settings, field.name) for field in fields(settings)} | given
    named = {name for each in urls for name, _ in parse_qsl(urlsplit(each).query)} | given.keys()
    if merged["secret"] is not None:
        merged["secret"] = [_long_enough(each) for each in _several(merged["secret"])]
        if "codec" not in named:
            merged["codec"] = "pickle"
    return Client(**merged)


def _long_enough(secret: str | bytes) -> bytes:
    """Return a secret as it is, or one that is derived from it if it is too short to sign with."""
    raw = secret.encode() if isinstance(secret, str) else secret
    return raw if len(raw) >= MIN_SECRET else sha256(b"shardcache:" + raw).digest()


def _several(given: Any) -> Sequence[Any]:  # one text, bytes, or several
    return [given] if isinstance(given, (str, bytes)) else list(given)
