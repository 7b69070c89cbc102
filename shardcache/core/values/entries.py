"""A cached value as its user sees it, with its age."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from shardcache.core.values.freshness import Stored

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class CacheEntry(Generic[R]):
    """A cached value, how old it is, and how much longer it is fresh.

    `age` is for how many seconds it has been stored. It is `None` for a value without an expiry, and
    for one that was stored without its age: values have it if the function has tags, or one of `stale`,
    `stale_if_error` and `early`. `remaining` is how many seconds are left until its ttl ends: 0 if it is
    stale, infinite without an expiry, `None` if its node cannot tell. `fresh` is whether its ttl has
    not ended.
    """

    value: R
    age: float | None
    remaining: float | None
    fresh: bool


def entry_of(value: R, stored: Stored, now: float, *, stale: bool) -> CacheEntry[R]:
    """Return the entry of a value that was stored with its age; `now` is the time of day in seconds."""
    left = stored.fresh_until - now
    age = max(0.0, stored.ttl - left) if math.isfinite(stored.ttl) else None
    return CacheEntry(value, age, max(0.0, left), fresh=not stale)
