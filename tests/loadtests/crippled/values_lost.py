"""One read in ten finds nothing: what the hit rate is there to see."""

from itertools import count

from shardcache import Client

_numbers = count()
_get = Client.get


def _forgetful(self, key, default=None):
    value = _get(self, key, default)
    return value if next(_numbers) % 10 else default


Client.get = _forgetful
