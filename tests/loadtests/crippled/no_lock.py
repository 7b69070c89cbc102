"""`cached(lock=True)` takes no lock: each process computes for itself."""

from shardcache import Client

_cached = Client.cached


def _unlocked(self, ttl, **terms):
    return _cached(self, ttl, **{**terms, "lock": False})


Client.cached = _unlocked
