"""Imported by each Python that is started with this directory on its path."""

import shardcache
from shardcache import AsyncClient, decorators

WITHOUT = {"lock": False, "coalesce": False, "stale": 0}

_cached, _default_cached = AsyncClient.cached, decorators.cached


def _each_for_itself(self, ttl, **terms):
    return _cached(self, ttl, **{**terms, **WITHOUT})


def _each_default_for_itself(**terms):
    return _default_cached(**{**terms, **WITHOUT})


AsyncClient.cached = _each_for_itself
shardcache.cached = _each_default_for_itself
