"""The expiry of a value as memcached reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

RELATIVE_LIMIT: Final = 60 * 60 * 24 * 30
LATEST_DATE: Final = 2**31 - 1


def memcached_exptime(ttl: float | None, now: Callable[[], float]) -> int:
    """Return the number that memcached takes for `ttl`: whole seconds, rounded up; 0 never expires.

    memcached reads a number above 30 days as a date, so longer lives are sent as dates of the Unix
    clock `now`. None is later than 2**31 - 1: beyond that memcached's clock wraps, and the value
    would vanish at once or never.

    >>> memcached_exptime(None, now=lambda: 1e9), memcached_exptime(0.2, now=lambda: 1e9)
    (0, 1)
    >>> memcached_exptime(2_592_000, now=lambda: 1e9), memcached_exptime(2_592_001, now=lambda: 1e9)
    (2592000, 1002592001)
    """
    if ttl is None:
        return 0
    seconds = math.ceil(ttl)
    if seconds <= RELATIVE_LIMIT:
        return seconds
    return min(math.ceil(now() + ttl), LATEST_DATE)
