"""shardcache as a backend of dogpile.cache: `make_region().configure("shardcache", …)`."""

from __future__ import annotations

from shardcache_dogpile.backend import ShardCacheBackend
from shardcache_dogpile.mutex import Mutex

__all__ = ["Mutex", "ShardCacheBackend"]
