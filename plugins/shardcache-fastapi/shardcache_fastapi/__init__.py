"""shardcache in FastAPI and Starlette: clients as dependencies, checked at the start, closed at the end.

The clients are those of `shardcache.configure` and `shardcache.cached`, one of each kind a process.
"""

from shardcache_fastapi.dependencies import BlockingCache, Cache
from shardcache_fastapi.lifespan import lifespan

__all__ = ["BlockingCache", "Cache", "lifespan"]
