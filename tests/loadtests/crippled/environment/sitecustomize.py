"""Imported by each Python that is started with this directory on its path."""

from shardcache import AsyncClient

_cached = AsyncClient.cached


def _each_for_itself(self, ttl, **terms):
    return _cached(self, ttl, **{**terms, "lock": False, "coalesce": False, "stale": 0})


AsyncClient.cached = _each_for_itself
