"""The settings of a cache's client: from its URL and options, with a codec for any object if it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from shardcache import ConfigurationError, Settings
from shardcache.core.secrecy import takes_secrets
from shardcache.core.values.signing import MIN_SECRET

Url: TypeAlias = "str | Sequence[str]"

# What a client takes besides its nodes, and what the cache itself takes.
OPTIONS: Final = {field.name for field in fields(Settings)} - {"nodes", "default_ttl"} | {
    "observers"
}
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
    urls = _several(url)
    settings = Settings.from_urls(urls)
    merged: dict[str, Any] = {
        field.name: getattr(settings, field.name) for field in fields(settings)
    }
    merged.update(options)
    given = {**parameters(urls), **options}
    if "default_ttl" in given:
        raise ConfigurationError("url: has default_ttl=; the cache has default_timeout instead")
    if "clearable" not in given:
        merged["clearable"] = True
    if merged["secret"] is not None:
        merged["secret"] = [_long_enough(each) for each in _several(merged["secret"])]
        if "codec" not in given:
            merged["codec"] = "pickle"
    return merged


def parameters(url: Url) -> dict[str, str]:
    """Return the settings in the query of a URL, or of several, as texts."""
    return {name: text for each in _several(url) for name, text in parse_qsl(urlsplit(each).query)}


def derive(secret: str | bytes) -> bytes:
    """Return a secret for signatures from one that an application has for other purposes as well."""
    return sha256(b"shardcache:" + _raw(secret)).digest()


def _long_enough(secret: str | bytes) -> bytes:
    raw = _raw(secret)
    return raw if len(raw) >= MIN_SECRET else derive(raw)


def _raw(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret


def _several(given: Any) -> Sequence[Any]:  # one text, bytes, or several
    return [given] if isinstance(given, (str, bytes)) else list(given)
