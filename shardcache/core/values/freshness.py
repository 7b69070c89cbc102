"""Whether a stored value is served, served and refreshed, or recomputed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from shardcache.core.cache_policy import CachePolicy
from shardcache.core.commands import Payload
from shardcache.core.values.envelopes import Envelope, unpack
from shardcache.core.values.flags import ENVELOPE_FLAGS, is_value
from shardcache.errors import DecodeError

EARLIEST: Final = 0.5  # of a value's ttl: before that it is never refreshed early


class Freshness(Enum):
    """What may be done with a value."""

    FRESH = "fresh"  # serve it
    EARLY = "early"  # serve it and refresh it: it expires soon
    STALE = "stale"  # serve it and refresh it: it has expired
    LAST_RESORT = "last resort"  # recompute, and serve it only if that fails
    EXPIRED = "expired"  # recompute, under the claim for a refresh that others may hold
    INVALID = "invalid"  # recompute, and replace it


class Stored(NamedTuple):
    """A stored value with its age; a value without an envelope is fresh until its node drops it."""

    payload: Payload
    fresh_until: float = math.inf
    delta: float = 0.0
    ttl: float = math.inf
    versions: Sequence[bytes] | None = None
    tags: Sequence[bytes] | None = None


def open_stored(payload: Payload) -> Stored | None:
    """Return the value in a stored payload; `None` if it cannot be read."""
    if payload[0] != ENVELOPE_FLAGS:
        return Stored(payload)
    try:
        flags, data, fresh_until, delta, ttl, versions, tags = unpack(payload[1])
    except DecodeError:
        return None
    if not is_value(flags):
        return None
    return Stored((flags, data), fresh_until, delta, ttl, versions, tags)


def seal(  # noqa: PLR0913, PLR0917 - all of an envelope
    payload: Payload,
    now: float,
    delta: float,
    ttl: float | None,
    versions: Sequence[bytes],
    tags: Sequence[bytes] | None = None,
) -> Envelope:
    """Return the envelope of a value that took `delta` seconds and is fresh for `ttl` from `now`."""
    flags, data = payload
    lifetime = math.inf if ttl is None else ttl
    return Envelope(flags, data, now + lifetime, delta, lifetime, versions, tags)


def freshness(
    value: Stored, policy: CachePolicy, now: float, chance: float, versions: Sequence[bytes | None]
) -> Freshness:
    """Return what may be done with a stored value at `now`; `chance` is 0 to 1.

    `versions` are the current versions of its tags. If they are not the value's own, it is invalid.
    """
    if versions and list(versions) != value.versions:
        return Freshness.INVALID
    left = value.fresh_until - now
    if left > 0:
        return Freshness.EARLY if _ends_soon(value, policy.early, left, chance) else Freshness.FRESH
    if -left < policy.seconds("stale"):
        return Freshness.STALE
    return Freshness.LAST_RESORT if serves_after_error(value, policy, now) else Freshness.EXPIRED


def serves_after_error(value: Stored, policy: CachePolicy, now: float) -> bool:
    """Return whether a value is young enough to be served in place of an error."""
    return now - value.fresh_until < policy.served_after_error


def _ends_soon(value: Stored, beta: float, left: float, chance: float) -> bool:
    """Decide by XFetch: likelier the longer the recompute took, and the sooner the value expires.

    Source: Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, 2015.
    """
    if not beta or left > EARLIEST * value.ttl:
        return False
    return -value.delta * beta * math.log(1 - chance) >= left
