"""A cache of cachelib over the nodes of a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from cachelib import BaseCache

from shardcache import (
    Client,
    ConfigurationError,
    EncodeError,
    InvalidKeyError,
    PartialFailureError,
)
from shardcache.core.keys import check_items
from shardcache.core.secrecy import takes_secrets
from shardcache.settings.releases import require
from shardcache_flask.clients import Url, merge_settings
from shardcache_flask.serializers import Serializer, SerializerFormat
from shardcache_flask.timeouts import Timeout, seconds_to_live

# Values are the caller's own objects, hence `Any`.


class ShardCache(BaseCache):
    """A cachelib cache over many memcached and Redis nodes. Safe between threads.

    A node that fails is a miss for `get`, `set`, `delete` and `has`. `add`, `inc` and `dec` raise its
    `NodeError`: a value that cannot be reached is not missing.
    """

    # For a value that the codec refuses because there is no secret to sign pickles with.
    way_out: ClassVar[str] = "with secret= the cache stores any object that pickle takes"

    @takes_secrets
    def __init__(
        self,
        url: Url | None = None,
        default_timeout: Timeout = 300,
        *,
        client: Client | None = None,
        key_prefix: str = "",
        ignore_delete_many_errors: bool = True,
        **options: Any,
    ) -> None:
        """Create a cache over the nodes of `url`, one or several, or over those of `client`.

        A timeout is in seconds or a `timedelta`; 0 means no expiry. `options` are the settings of a
        client, such as `secret` or `strategy`, and override those of the URL. With a `secret`, which
        signs what is stored, any object is stored that pickle takes; without it, built-in types.

        `key_prefix` is put before each key, as part of the namespace, in which `clear` ends all keys.
        With `clearable=False` the keys on the nodes are those of cachelib's own caches, and
        `clear` empties the nodes for all of their users. A `client` that is given has a namespace, and
        is closed by its owner.

        Raise `ConfigurationError` listing every fault, and for an option that is not known.
        """
        require("shardcache-flask", "cachelib", "0.9")
        super().__init__()
        seconds_to_live(default_timeout)  # raises if it is not a timeout
        self.default_timeout = default_timeout  # type: ignore[assignment] # cachelib's is an int
        self.ignore_delete_many_errors = ignore_delete_many_errors
        if not isinstance(key_prefix, str):
            raise ConfigurationError("key_prefix: must be text")
        self.key_prefix = self._prefix = key_prefix
        self._flushes = self._lacks_secret = False
        self._serializer: Serializer | None = None
        if client is None:
            settings = merge_settings(url, options)
            if settings["clearable"]:
                settings["namespace"] += key_prefix
                self._prefix = ""
            else:
                self._flushes = True
            self._lacks_secret = settings["secret"] is None and "codec" not in settings
            self._owned = Client(**settings)
        elif url or options:
            raise ConfigurationError(
                "client: has nodes and settings already; give no url or options"
            )
        elif not isinstance(client, Client):
            raise ConfigurationError(
                f"client: must be a shardcache.Client, not {type(client).__name__}"
            )
        else:
            self._owned = client.view()
        self._use(self._owned)

    @property
    def client(self) -> Client:
        """Return the client, for what cachelib does not have: locks, tags, counters."""
        return self._client

    @property
    def serializer(self) -> Serializer | None:
        """Return the cachelib serializer that stores the values; by default the client's codec does."""
        return self._serializer

    @serializer.setter
    def serializer(self, serializer: Serializer) -> None:
        self._use(self._owned.view(codec=SerializerFormat(serializer)))
        self._serializer = serializer

    def get(self, key: str) -> Any:
        """Return the value of `key`, or `None`."""
        return self._client.get(self._name(key))

    def get_many(self, *keys: str) -> list[Any]:
        """Return a value or `None` for each key; all nodes are asked at once."""
        names = [self._name(key) for key in keys]
        found = self._client.get_many(names)
        return [found.get(name) for name in names]

    def set(self, key: str, value: Any, timeout: Timeout | None = None) -> bool:
        """Store a value; return whether it was stored."""
        try:
            return self._client.set(self._name(key), value, self._ttl(timeout))
        except EncodeError as error:
            raise self._refusal(error) from None

    def add(self, key: str, value: Any, timeout: Timeout | None = None) -> bool:
        """Store a value if the key is missing; return whether it was stored.

        Raise `NodeError` if its node fails.
        """
        try:
            return self._raising.add(self._name(key), value, self._ttl(timeout))
        except EncodeError as error:
            raise self._refusal(error) from None

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout | None = None) -> list[str]:
        """Store every item, all nodes at once; return the keys that were stored."""
        check_items("set_many", mapping)
        items: dict[str | bytes, Any] = {self._name(key): value for key, value in mapping.items()}
        try:
            failed = self._client.set_many(items, self._ttl(timeout))
        except EncodeError as error:
            raise self._refusal(error) from None
        return self._without(mapping, failed)

    def delete(self, key: str) -> bool:
        """Delete a key; return whether it existed."""
        return self._client.delete(self._name(key))

    def delete_many(self, *keys: str) -> list[str]:
        """Delete every key, all nodes at once; return those that are gone, missing ones included.

        With `ignore_delete_many_errors=False`, raise `RuntimeError` if a node failed.
        """
        try:
            self._raising.delete_many([self._name(key) for key in keys])
        except PartialFailureError as error:
            if not self.ignore_delete_many_errors:
                raise RuntimeError(f"keys could not be deleted: {error}") from error
            return self._without(keys, error.failed)
        return list(keys)

    def has(self, key: str) -> bool:
        """Return whether a key exists, without reading its value."""
        return self._client.exists(self._name(key))

    def clear(self) -> bool:
        """End all keys of the namespace; return whether that is in force.

        With `clearable=False` empty the nodes, for all of their users.
        """
        return self._client.flush_all() if self._flushes else self._client.clear()

    def inc(self, key: str, delta: int = 1) -> int:
        """Add `delta` to a counter, which may fall below 0; a missing one begins with `delta`.

        Raise `NodeError` if its node fails, `NotACounterError` if the value is not a whole number.
        """
        count = self._raising.incr if delta >= 0 else self._raising.decr
        ttl = self._ttl(None)
        value = count(self._name(key), abs(delta), initial=delta, ttl=ttl, floor=None)
        assert value is not None  # noqa: S101 - a missing one is created
        return value

    def dec(self, key: str, delta: int = 1) -> int:
        """Subtract `delta` from a counter; see `inc`."""
        return self.inc(key, -delta)

    def close(self) -> None:
        """Close the connections, unless they belong to a client that was given."""
        self._owned.close()

    def _use(self, client: Client) -> None:
        """Ask this client from now on, and a view of it where a failing node must not be a miss."""
        self._client = client
        self._raising = client.view(on_error="raise")

    def _name(self, key: str) -> str:
        if not isinstance(key, str):
            raise InvalidKeyError(f"a key must be str, not {type(key).__name__}")
        return self._prefix + key

    def _ttl(self, timeout: Timeout | None) -> float | None:
        return seconds_to_live(self.default_timeout if timeout is None else timeout)

    def _without(self, keys: Iterable[str], failed: Iterable[str | bytes]) -> list[str]:
        """Return the keys, in their order, except those that failed."""
        left_out = set(failed)
        return [key for key in keys if self._name(key) not in left_out]

    def _refusal(self, error: EncodeError) -> Exception:
        """Return the error of pickle itself, or that of the codec with the way out."""
        if isinstance(error.__cause__, Exception):
            return error.__cause__
        if self._lacks_secret and self._serializer is None:
            return EncodeError(f"{error}; {self.way_out}")
        return error
