"""The cache of a Flask application, as Flask-Caching creates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from shardcache import ConfigurationError
from shardcache.core.secrecy import takes_secrets
from shardcache.settings.adapters import (
    derive_secret,
    read_urls,
    several_urls,
    warn_of_short_secrets,
)
from shardcache.settings.releases import require
from shardcache_flask.cache import ShardCache


class FlaskCache(ShardCache):
    """A `ShardCache` from an application's configuration: `CACHE_TYPE = "shardcache_flask.FlaskCache"`.

    | key | what it is |
    |---|---|
    | `CACHE_SHARDCACHE_URL` | the nodes and settings: a URL, or a list of them |
    | `CACHE_OPTIONS` | more arguments of `ShardCache`, such as `strategy` |
    | `CACHE_KEY_PREFIX` | part of the namespace, `flask_cache_` by default |
    | `CACHE_DEFAULT_TIMEOUT` | seconds, 300 by default; 0 means no expiry |
    | `CACHE_IGNORE_ERRORS` | whether `delete_many` raises nothing when a node fails |
    | `SECRET_KEY`, `SECRET_KEY_FALLBACKS` | sign what is stored; the first signs, all are accepted |
    """

    way_out: ClassVar[str] = (
        "with app.config['SECRET_KEY'], set before the cache is initialised, it stores any object that"
        " pickle takes"
    )

    @takes_secrets
    def __init__(
        self,
        app: object,  # noqa: ARG002 - all that matters is in `config`
        config: Mapping[str, Any],
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        """Create the cache of a configuration; Flask-Caching calls this.

        Raise `ConfigurationError` as `ShardCache` does, and when Flask-Caching is too old.
        """
        require("shardcache-flask", "Flask-Caching", "2.1")
        merged = {
            "url": config.get("CACHE_SHARDCACHE_URL"),
            "key_prefix": config.get("CACHE_KEY_PREFIX") or "",
            "ignore_delete_many_errors": config.get("CACHE_IGNORE_ERRORS", False),
            **options,
            **dict(zip(("url", "default_timeout"), args, strict=False)),
        }
        if merged["url"]:
            merged = _with_secret(merged, config)
        elif "client" not in merged:
            raise ConfigurationError(
                "CACHE_SHARDCACHE_URL is missing; write a URL such as memcached://10.0.0.1,10.0.0.2,"
                " or a list of them"
            )
        super().__init__(**merged)


def _with_secret(options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, with secrets from the application's for pickles without a secret."""
    given = {**read_urls(several_urls(options["url"])), **options}
    key = config.get("SECRET_KEY")
    if key and "secret" not in given and given.get("codec", "pickle") == "pickle":
        if not isinstance(key, (str, bytes)):
            raise ConfigurationError(f"SECRET_KEY: must be text or bytes, not {type(key).__name__}")
        fallbacks = _fallbacks(config)
        warn_of_short_secrets("SECRET_KEY", [key])
        warn_of_short_secrets("SECRET_KEY_FALLBACKS", fallbacks)
        return {**options, "secret": [derive_secret(each) for each in (key, *fallbacks)]}
    return dict(options)


def _fallbacks(config: Mapping[str, Any]) -> Sequence[Any]:
    """Return the former secrets. Text would be a list of its letters, each of them a secret."""
    keys = config.get("SECRET_KEY_FALLBACKS") or ()
    if not isinstance(keys, (list, tuple)) or not all(
        each and isinstance(each, (str, bytes)) for each in keys
    ):
        raise ConfigurationError(
            "SECRET_KEY_FALLBACKS: must be a list of secrets, none of them empty"
        )
    return keys
