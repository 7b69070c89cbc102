"""A cached value as its user sees it, with its age."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from shardcache.core.values.freshness import Stored

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry(Generic[R]):
    """A cached value, how old it is, and how much longer it is fresh.

    `age` is for how many seconds it has been stored, and `remaining` how many seconds are left until
    its ttl ends: 0 if it is stale, infinite without an expiry. Both are `None` if the value was stored
    without its age, as it is unless the function has tags, or one of `stale`, `stale_if_error` and
    `early`; the age also of a value without an expiry. `fresh` is whether its ttl has not ended.
    """

    value: R
    age: float | None
    remaining: float | None
    fresh: bool


def entry_of(value: R, stored: Stored, now: float, *, stale: bool) -> CacheEntry[R]:
    """Return the entry of a stored value at `now`, the time of day in seconds."""
    left = stored.fresh_until - now
    aged = stored.versions is not None
    return CacheEntry(
        value=value,
        age=max(0.0, stored.ttl - left) if aged and math.isfinite(stored.ttl) else None,
        remaining=max(0.0, left) if aged else None,
        fresh=not stale,
    )
