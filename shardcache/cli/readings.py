"""What servers did between two readings of their figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from shardcache.errors import NodeError
from shardcache.operations.keys.admin import NodeStats

HITS: Final = (("get_hits", "get_misses"), ("keyspace_hits", "keyspace_misses"), ("hits", "misses"))
# The sums of these are the calls and the evictions of a server of any kind.
CALLS: Final = (
    "total_commands_processed",
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "delete_hits",
    "delete_misses",
    "incr_hits",
    "incr_misses",
    "decr_hits",
    "decr_misses",
)
EVICTIONS: Final = ("evictions", "evicted_keys")
MAX_DIGITS: Final = 20  # of a counter of 64 bits


class Interval(NamedTuple):
    """What a server answered between two readings, `seconds` apart.

    `calls` and `evictions` are `None` if the server does not tell. Its own statistics are calls too.
    """

    hits: int
    misses: int
    seconds: float
    calls: int | None = None
    evictions: int | None = None

    @property
    def hit_rate(self) -> float | None:
        """Return the share of reads that found a value; `None` without a read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None

    @property
    def calls_per_second(self) -> float | None:
        """Return the calls a second; `None` if the server does not tell."""
        return None if self.calls is None else self.calls / self.seconds


Server = dict[str, str]
Figures = Mapping[str, NodeStats]
Intervals = Mapping[str, Interval]


def readings(read: Callable[[], Figures], seconds: float) -> Iterator[tuple[Figures, Intervals]]:
    """Read the figures every `seconds`; yield them with what each node did since the reading before."""
    before: Figures = {}
    read_at = time.monotonic()
    due = read_at
    while True:
        figures = read()
        now = time.monotonic()
        yield figures, since(before, figures, now - read_at)
        before, read_at = figures, now
        due = max(due + seconds, now)
        time.sleep(max(0.0, due - time.monotonic()))


def since(before: Figures, after: Figures, seconds: float) -> Intervals:
    """Return what each node did between two readings, if both are known and it did not restart."""
    intervals = {}
    for name, figure in after.items():
        old = before[name].server if name in before else None
        if isinstance(figure.server, NodeError) or old is None or isinstance(old, NodeError):
            continue
        interval = interval_of(old, figure.server, seconds)
        if interval is not None:
            intervals[name] = interval
    return intervals


def interval_of(before: Server, after: Server, seconds: float) -> Interval | None:
    """Return what a server did between two readings; `None` if it restarted in between."""
    hits, misses = (new - old for new, old in zip(reads(after), reads(before), strict=True))
    calls, evictions = (_growth(before, after, names) for names in (CALLS, EVICTIONS))
    if min(hits, misses, calls or 0, evictions or 0) < 0:
        return None
    return Interval(hits, misses, seconds, calls, evictions)


def _growth(before: Server, after: Server, names: Sequence[str]) -> int | None:
    """Return by how much the sum of some counters grew; `None` if the server has none of them."""
    told = [name for name in names if name in before and name in after]
    return sum(number_of(after[name]) - number_of(before[name]) for name in told) if told else None


def reads(server: dict[str, str]) -> tuple[int, int]:
    """Return how many reads a server answered with a value, and how many without one."""
    for hits, misses in HITS:
        if hits in server:
            return number_of(server[hits]), number_of(server.get(misses, "0"))
    return 0, 0


def number_of(text: str) -> int:
    """Return the whole number that a server sent; zero for anything else."""
    return int(text) if is_number(text) else 0


def is_number(text: str) -> bool:
    """Return whether a server sent a whole number, as its counters are."""
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
