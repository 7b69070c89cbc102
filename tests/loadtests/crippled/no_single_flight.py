"""`cached` neither takes a lock nor lets callers of one process wait for each other."""

from shardcache import Client

_cached = Client.cached


def _each_for_itself(self, ttl, **terms):
    return _cached(self, ttl, **{**terms, "lock": False, "coalesce": False})


Client.cached = _each_for_itself
