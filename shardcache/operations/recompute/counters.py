"""What became of the calls for computed values, counted."""

from __future__ import annotations

from typing import Final

COUNTERS: Final = {
    "hits": "served fresh",
    "misses": "had nothing to serve at once",
    "stale": "served after their ttl",
    "early": "hits after which the value was refreshed before its ttl ended",
    "recomputes": "calls of the function, beside those by `bypass`",
    "coalesced": "got what another caller of this process made",
    "lock_waits": "waited for another process",
    "wait_seconds": "for how long those did, in all",
    "timeouts": "waited for another caller's value until they timed out",
    "rejected": "values not stored: something newer or an invalidation came, or the claim ran out",
    "uncached": "values not stored, because of what they were",
    "errors": "exceptions of the function",
    "swallowed": "of which an old value was served in place",
    "cache_errors": "failures of cache nodes",
    "locks_lost": "locks lost while a value was being made",
    "locks_unavailable": "locks for which too few nodes answered",
}


class RecomputeCounters:
    """The counters of one cached function, or of all of a client; `COUNTERS` says of what each is.

    They are plain numbers in a dict: CPython switches threads only at calls and jumps, and adding
    to one has neither between its load and its store, so no count is lost. `name` is that of the
    function.
    """

    __slots__ = ("counts", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)

    def add(self, what: str, amount: float = 1) -> None:
        """Add to the counter called `what`."""
        self.counts[what] += amount
