"""The goals: how far from the floor, or ahead of which peer, each kind of work has to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bench.rounds import Figures

Results = Mapping[str, Figures]

GET_PEERS: Final = ("python-memcached", "meta-memcache")
TWO_DIGITS: Final = 0.005


class Sense(Enum):
    """How a figure is compared: all but `FASTER` are better when they are lower."""

    OVER = "× the time of"  # of the best base
    FASTER = "× as fast as"  # the best base
    ABOVE = "µs above"  # the base
    FIGURE = ""  # as it was measured


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of a row: a subject of a case, against others of the same case, with two bounds.

    `before` is the figure that the goals were set against; `unit` divides a figure that stands alone.
    """

    work: str
    case: str
    subject: str
    sense: Sense
    bases: tuple[str, ...] = ()
    reach: float | None = None
    stretch: float | None = None
    before: str = "–"
    unit: tuple[float, str] = (1.0, "")
    base_case: str | None = None
    cpu: bool = False

    def measured(self, results: Results) -> float | None:
        """Return the figure in the sense of the goal; `None` if a part of it was not measured."""
        ours = _value(results, self.case, self.subject, cpu=self.cpu)
        if ours is None:
            return None
        if self.sense is Sense.FIGURE:
            return ours / self.unit[0]
        base = self.base(results)
        if base is None:
            return None
        _, theirs = base
        if self.sense is Sense.ABOVE:
            return (ours - theirs) * 1e6
        return theirs / ours if self.sense is Sense.FASTER else ours / theirs

    def base(self, results: Results) -> tuple[str, float] | None:
        """Return the best base that took part, and its figure."""
        case = self.base_case or self.case
        there = [
            (value, name)
            for name in self.bases
            if (value := _value(results, case, name, cpu=self.cpu)) is not None
        ]
        if not there:
            return None
        value, name = min(there)
        return name, value

    def miss(self, measured: float, bound: float) -> float:
        """Return by which share a figure misses a bound; zero or less if it holds."""
        if self.sense is Sense.FASTER:
            return bound / measured - 1
        return measured / bound - 1 if bound else measured

    def verdict(self, results: Results) -> str:
        """Return `stretch`, `held`, `missed by …`, or that there is no bound or no figure."""
        measured = self.measured(results)
        if measured is None:
            return "not measured"
        if self.stretch is not None and self.miss(measured, self.stretch) <= TWO_DIGITS:
            return "stretch"
        if self.reach is None:
            return "–"
        missed = self.miss(measured, self.reach)
        if missed <= TWO_DIGITS:
            return "held"
        return f"missed by {missed:.0%}" if self.reach else f"missed by {measured:,.0f}"


def _value(results: Results, case: str, subject: str, *, cpu: bool) -> float | None:
    figure = results.get(case, {}).get(subject)
    if figure is None:
        return None
    return figure.cpu if cpu else figure.value


def _over(  # noqa: PLR0913, PLR0917 - the columns of a table
    work: str,
    case: str,
    bases: str | tuple[str, ...],
    reach: float | None,
    stretch: float | None,
    before: str,
    subject: str = "shardcache",
    base_case: str | None = None,
) -> Goal:
    names = (bases,) if isinstance(bases, str) else bases
    return Goal(work, case, subject, Sense.OVER, names, reach, stretch, before, base_case=base_case)


def _faster(  # noqa: PLR0913, PLR0917 - the columns of a table
    work: str,
    case: str,
    bases: str | tuple[str, ...],
    reach: float | None,
    stretch: float | None,
    before: str,
    subject: str = "shardcache",
) -> Goal:
    names = (bases,) if isinstance(bases, str) else bases
    return Goal(work, case, subject, Sense.FASTER, names, reach, stretch, before)


def _figure(  # noqa: PLR0913, PLR0917 - the columns of a table
    work: str,
    case: str,
    subject: str,
    unit: tuple[float, str],
    reach: float | None,
    stretch: float | None,
    before: str,
    *,
    cpu: bool = False,
) -> Goal:
    return Goal(work, case, subject, Sense.FIGURE, (), reach, stretch, before, unit=unit, cpu=cpu)


MICRO: Final = (1e-6, "µs")
KB: Final = (1024, "KiB")
COUNT: Final = (1.0, "")

ASYNC_PEERS: Final = {
    "redis": ("valkey-glide, 1 node", "redis.asyncio, 1 node", "coredis, 1 node"),
    "memcached": ("aiomcache, 1 node", "emcache"),
}

GOALS: Final = (
    _over("blocking get, 8 memcached", "get, 8 memcached", "raw", 1.25, 1.12, "1.50"),
    *(
        _over(f"blocking {name}, 8 memcached", f"{name}, 8 memcached", "raw", 1.3, 1.15, "1.59")
        for name in ("set", "incr", "delete")
    ),
    *(
        _faster(
            f"blocking {name}, 8 memcached, the best of two peers",
            f"{name}, 8 memcached",
            GET_PEERS,
            1.0,
            None,
            before,
        )
        for name, before in (("get", "0.86"), ("set", "0.87"), ("incr", "0.80"), ("delete", "–"))
    ),
    _over("blocking get, 8 Redis", "get, 8 redis", "raw", 1.25, 1.15, "1.48"),
    _faster("blocking get, 8 Redis", "get, 8 redis", "redis-py, 1 node", 1.8, None, "1.5"),
    _over("get_many(100), 8 memcached", "get_many(100), 8 memcached", "pylibmc", 1.25, 1.1, "1.78"),
    _over(
        "get_many(1,000), 8 memcached", "get_many(1,000), 8 memcached", "pylibmc", 0.8, 0.7, "1.29"
    ),
    *(
        goal
        for name in ("set_many", "delete_many")
        for goal in (
            _faster(
                f"{name}(100), 8 memcached", f"{name}(100), 8 memcached", "pylibmc", 6.5, 8, "4.0"
            ),
            _faster(
                f"{name}(100), 8 memcached",
                f"{name}(100), 8 memcached",
                "python-memcached",
                1.6,
                None,
                "0.95",
            ),
        )
    ),
    _over(
        "get_many(100), 8 Redis, over one MGET",
        "get_many(100), 8 redis",
        "redis-py, 1 node",
        2.3,
        1.8,
        "3.7",
    ),
    *(
        _over(
            f"async get, 500 tasks, 8 {kind}, over a multiplexer that parses nothing",
            f"async get, 500 tasks, 8 {kind}",
            "multiplexer",
            3.5,
            2.5,
            "4.0",
        )
        for kind in ("memcached", "redis")
    ),
    *(
        _faster(
            f"async get, {tasks} tasks, Redis",
            f"async get, {tasks} tasks, 8 redis",
            "redis.asyncio, 1 node",
            12,
            None,
            "10",
        )
        for tasks in (50, 500)
    ),
    *(
        _faster(
            f"async get, {tasks} tasks, Redis",
            f"async get, {tasks} tasks, 8 redis",
            "valkey-glide, 1 node",
            reach,
            10,
            before,
        )
        for tasks, reach, before in ((50, 6, "4.9"), (500, 4.5, "3.3"))
    ),
    *(
        _faster(
            f"async get, {tasks} tasks, memcached, the best peer",
            f"async get, {tasks} tasks, 8 memcached",
            ASYNC_PEERS["memcached"],
            4.5,
            6,
            "3.3",
        )
        for tasks in (50, 500)
    ),
    _faster(
        "async get_many(100), 10 tasks, 8 memcached",
        "async get_many(100), 10 tasks, 8 memcached",
        "emcache",
        1.6,
        2,
        "1.0",
    ),
    _faster(
        "async get_many(100), 10 tasks, 1 Redis, the best peer",
        "async get_many(100), 10 tasks, 8 redis",
        ASYNC_PEERS["redis"],
        1.6,
        2,
        "–",
        "shardcache, 1 node",
    ),
    *(
        _over(
            f"{operation} {size}, 8 {kind}, fresh process, over the best way through a socket",
            f"{operation} {size}, 8 {kind}, fresh process",
            "raw",
            1.2,
            None,
            "–",
        )
        for kind in ("memcached", "redis")
        for size in ("100 KiB", "1 MB")
        for operation in ("get", "set")
    ),
    *(
        _figure(
            f"page faults of a {operation} of {size}, {kind}",
            f"{operation} {size}, 8 {kind}, page faults",
            "shardcache",
            COUNT,
            0,
            None,
            "457",
        )
        for kind in ("memcached", "redis")
        for size in ("100 KiB", "1 MB")
        for operation in ("get", "set")
    ),
    *(
        _figure(
            f"owner(key), {strategy}, 1,000 nodes",
            "owner(key), 1,000 nodes",
            strategy,
            MICRO,
            reach,
            stretch,
            before,
        )
        for strategy, reach, stretch, before in (
            ("rendezvous", 0.2, 0.1, "0.17"),
            ("maglev", 0.2, 0.1, "0.12"),
            ("ketama", 1.1, None, "2.08"),
        )
    ),
    _figure(
        "owner(key), rendezvous, first pass over 20,000 keys, 1,000 nodes, a key",
        "owner(key), first pass over 20,000 keys, 1,000 nodes",
        "rendezvous",
        MICRO,
        1.0,
        None,
        "52",
    ),
    *(
        Goal(
            f"a hit of a cached function, 8 {kind}",
            f"a hit of a cached function, 8 {kind}",
            "cached, lock",
            Sense.ABOVE,
            ("get",),
            5,
            3,
            "8–9",
        )
        for kind in ("memcached", "redis")
    ),
    Goal(
        "a hit with two tags, 8 memcached",
        "a hit of a cached function, 8 memcached",
        "cached, two tags",
        Sense.ABOVE,
        ("get",),
        before="80",
    ),
    _over(
        "a hit after a rest of 10 s, over a hit",
        "a hit after a rest of 10 s, 8 memcached",
        "a hit",
        1.5,
        None,
        "7",
        "after a rest",
    ),
    _figure(
        "background commands a second of 100 functions that are called",
        "commands a second beside 100 functions, 8 memcached",
        "beside hits",
        COUNT,
        5,
        1,
        "500",
    ),
    _figure(
        "… that rest",
        "commands a second beside 100 functions, 8 memcached",
        "idle",
        COUNT,
        0,
        None,
        "–",
    ),
    *(
        _figure(
            f"CPU of a caller who joins a recompute, {crowd} tasks",
            f"a caller who joins a recompute, {crowd} tasks",
            "shardcache",
            MICRO,
            35,
            20,
            before,
        )
        for crowd, before in (("1,000", "41–58"), ("20,000", "115"))
    ),
    _figure(
        "memory of an idle client of 8 nodes, beyond what equal ones share",
        "memory of an idle client of 8 nodes",
        "one more of equal nodes",
        KB,
        64,
        None,
        "557",
    ),
    _figure(
        "memory of a caller who waits for a recompute",
        "memory of a caller who waits",
        "of a cached function",
        KB,
        3,
        None,
        "6.6",
    ),
    _over(
        "import shardcache, CPU, over import asyncio",
        "import, CPU above a bare interpreter",
        "import asyncio",
        1.3,
        None,
        "2.7",
        "import shardcache",
    ),
    _over(
        "first client, CPU, over import asyncio",
        "import, CPU above a bare interpreter",
        "import asyncio",
        3,
        None,
        "4.4",
        "first client, memcached",
    ),
    _over(
        "get_many(100), one of 8 nodes 20 ms away, over a get of that node",
        "get_many(100), 8 memcached, one 20 ms away",
        "get of the slow node",
        1.1,
        None,
        "–",
        "get_many",
    ),
    _figure(
        "get_many(100), one of 8 nodes stopped: calls that waited for the timeout",
        "get_many(100), 8 memcached, one stopped",
        "calls that waited",
        COUNT,
        3,
        1,
        "–",
    ),
    _over(
        "… and the calls after them, over all nodes well",
        "get_many(100), 8 memcached, one stopped",
        "all nodes well",
        1.1,
        None,
        "–",
        "once it is known",
    ),
    _over(
        "get of 16 threads, pool_size=4, over a connection for each",
        "get, 16 threads, 8 memcached",
        "shardcache",
        None,
        None,
        "1.8",
        "shardcache, pool_size=4",
    ),
    _over(
        "a hit of 50 rows with datetimes and UUIDs, over pickle",
        "own types, a hit of 50 rows",
        "pickle, dataclass",
        None,
        None,
        "3–4",
        "dicts, no type",
    ),
)
