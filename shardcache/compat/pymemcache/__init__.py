"""pymemcache's `HashClient` over shardcache: change the import, keep the calls and the warm cache."""

from shardcache.compat.pymemcache.errors import MemcacheUnavailableError
from shardcache.compat.pymemcache.hash_client import HashClient

__all__ = ["HashClient", "MemcacheUnavailableError"]
