"""shardcache as a cache of cachelib (`ShardCache`) and of Flask-Caching (`FlaskCache`)."""

from __future__ import annotations

from shardcache_flask.cache import ShardCache
from shardcache_flask.flask import FlaskCache

__all__ = ["FlaskCache", "ShardCache"]
