"""The backend of a region: a client's nodes hold the values, and its locks are the mutexes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from dogpile.cache.api import NO_VALUE, CacheBackend, CachedValue

from shardcache import ConfigurationError, Lock, LockUnavailable
from shardcache.core.keys import check_keys
from shardcache.core.secrecy import takes_secrets
from shardcache.settings.adapters import OPTIONS
from shardcache.settings.releases import require
from shardcache_dogpile.clients import build_client
from shardcache_dogpile.mutex import Mutex

if TYPE_CHECKING:  # older releases, which are refused in `__init__`, do not have all of them
    from dogpile.cache.api import BackendFormatted, BackendSetType, CacheMutex

OWN_ARGUMENTS: Final = {"url", "client", "distributed_lock", "lock_ttl", "max_hold"}
LINE_EVERY: Final = 60.0  # seconds between two lines about locks that are not available

log = logging.getLogger("shardcache")

# Values are the caller's own objects, hence `Any`.


class ShardCacheBackend(CacheBackend):
    """A dogpile.cache backend over many memcached and Redis nodes. Safe between threads.

    | argument | what it is |
    |---|---|
    | `url` | the nodes and settings: a URL, or a list of them |
    | `client` | in place of `url`: a client that other code uses as well |
    | `distributed_lock` | whether one process of all creates a value; true by default |
    | `lock_ttl` | seconds until the lock of a process that died is free; 10 by default |
    | `max_hold` | seconds for which a value may be created under its lock; 60 by default |
    | `default_ttl`, `secret`, `strategy` … | settings of a client; they override those of the URL |

    A node that fails is a miss. Other arguments are ignored, as in dogpile.cache's own backends, and
    logged.
    """

    @takes_secrets
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Create the backend of a region; raise `ConfigurationError` listing every fault."""
        require("shardcache-dogpile", "dogpile.cache", "1.3")
        if not isinstance(arguments, Mapping):
            raise ConfigurationError(f"arguments: must be a dict, not {type(arguments).__name__}")
        _log_unknown(arguments)
        self.client = build_client(arguments)
        distributed = arguments.get("distributed_lock", True)
        if distributed not in (True, False):  # as are 1 and 0, which a file of settings may have
            raise ConfigurationError("distributed_lock: must be true or false")
        self._distributed = bool(distributed)
        self._lock_ttl = arguments.get("lock_ttl", 10.0)
        self._max_hold = arguments.get("max_hold", 60.0)
        self._next_line = 0.0
        if self._distributed:
            self._lock("any key")  # raises for a wrong `lock_ttl` or `max_hold`

    def get(self, key: str) -> BackendFormatted:
        """Return the value of `key`, or `NO_VALUE`."""
        return _from_stored(self.client.get(key))

    def get_multi(self, keys: Iterable[str]) -> Sequence[BackendFormatted]:
        """Return the value of each key, or `NO_VALUE`; all nodes are asked at once."""
        check_keys("get_multi", keys)
        wanted = list(keys)
        found = self.client.get_many(wanted)
        return [_from_stored(found.get(key)) for key in wanted]

    def set(self, key: str, value: BackendSetType) -> None:
        """Store a value."""
        self.client.set(key, _to_stored(value))

    def set_multi(self, mapping: Mapping[str, BackendSetType]) -> None:
        """Store many values, all nodes at once."""
        self.client.set_many({key: _to_stored(value) for key, value in mapping.items()})

    def delete(self, key: str) -> None:
        """Delete a key."""
        self.client.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Delete many keys, all nodes at once."""
        check_keys("delete_multi", keys)
        self.client.delete_many(keys)

    def get_mutex(self, key: str) -> CacheMutex | None:
        """Return the mutex of `key`; `None` for one within this process, by dogpile.cache itself."""
        if not self._distributed:
            return None

        def is_storable() -> bool:
            return self.client.node_for(key) not in self.client.ejected

        return cast("CacheMutex", Mutex(self._lock(key), is_storable, self._log_unavailable))

    def _lock(self, key: str) -> Lock:
        # A program that holds a lock of its own, on the same client, may create the value of that name.
        return self.client.lock(
            f"dogpile:{key}", ttl=self._lock_ttl, renew=True, max_hold=self._max_hold
        )

    def _log_unavailable(self, error: LockUnavailable) -> None:
        """Log, at most once a minute, that each process creates values for itself."""
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + LINE_EVERY
            log.warning("dogpile: each process creates values for itself: %s", error)


def _to_stored(value: BackendSetType) -> list[Any] | bytes:
    """Return what the client stores: bytes that the region has serialized, or payload and metadata."""
    return value if isinstance(value, bytes) else [value.payload, dict(value.metadata)]


def _from_stored(stored: Any) -> BackendFormatted:
    """Return the value of what the client has stored; `NO_VALUE` if a region did not store it."""
    if isinstance(stored, bytes):
        return stored
    match stored:
        case [payload, {"ct": _, "v": _} as metadata]:
            return CachedValue(payload, metadata)
    return NO_VALUE


def _log_unknown(arguments: Mapping[str, Any]) -> None:
    unknown = sorted(map(repr, arguments.keys() - OWN_ARGUMENTS - OPTIONS))
    if unknown:
        known = ", ".join(sorted(OWN_ARGUMENTS | OPTIONS))
        log.warning("dogpile: arguments %s are ignored (known: %s)", ", ".join(unknown), known)
