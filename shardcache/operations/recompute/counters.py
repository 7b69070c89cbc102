"""Counters of the calls for cached values."""

from __future__ import annotations

from typing import Final

COUNTERS: Final = {
    "hits": "served fresh",
    "misses": "had nothing to serve",
    "stale": "served after their ttl",
    "early": "hits after which the value was refreshed before its ttl ended",
    "recomputes": "calls of the function, without those by `bypass`",
    "coalesced": "got the value of another caller in this process",
    "lock_waits": "waited for another process",
    "wait_seconds": "the time that those waited, in all",
    "timeouts": "waited for another caller's value until they timed out",
    "rejected": "values not stored: something newer or an invalidation came, or the claim ran out",
    "uncached": "results that were not stored: the policy does not keep them, or they cannot be",
    "orphaned": "recomputes that went on after their last caller was cancelled",
    "errors": "exceptions of the function",
    "swallowed": "errors in whose place an old value was served",
    "cache_errors": "failures of cache nodes",
    "locks_lost": "locks lost during a recompute",
    "locks_unavailable": "locks for which too few nodes answered",
}


class RecomputeCounters:
    """The counters of one cached function, or of all of a client; `COUNTERS` describes each.

    They are plain numbers in a dict: CPython switches threads only at calls and jumps, and adding
    to one has neither between its load and its store, so no count is lost. `name` is the function's.
    """

    __slots__ = ("counts", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)
