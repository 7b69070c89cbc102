"""One read in a hundred is answered with the value of the key before: another user's data."""

from itertools import count

from shardcache import Client

_numbers = count()
_get = Client.get
_last = [None]


def _confused(self, key, default=None):
    value = _get(self, key, default)
    answer = value if next(_numbers) % 100 else _last[0]
    _last[0] = value
    return answer


Client.get = _confused
