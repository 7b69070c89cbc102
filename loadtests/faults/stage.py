"""The stage of a row: servers, proxies in front of them, and a player in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from faults.actors import Actor, acting
from faults.lag import Lag, LagMeter
from faults.players import Part, Report
from faults.usage import Usage
from shardcache.testing import FaultProxy
from shardcache.testing.servers import Server, start_memcached, start_redis

NODES: Final = 5
TIMEOUT: Final = 0.1  # seconds; of one call
KEYS: Final = 2000
RATE: Final = 1000.0  # calls a second of all workers

STARTS: Final[dict[str, Callable[..., Server]]] = {
    "memcached": lambda *arguments: start_memcached("-m", "16", *arguments),
    "pymemcache": lambda *arguments: start_memcached("-m", "16", *arguments),
    "redis": start_redis,
}


@dataclass(frozen=True, slots=True)
class Crew:
    """Who calls: a class of players as `module:Class`, and how many workers it has."""

    name: str
    subject: str
    workers: int

    @property
    def blocking(self) -> bool:
        """Return whether it plays the blocking client."""
        return self.subject.endswith(":ThreadsPlayer")

    def connections(self, nodes: int) -> int:
        """Return how many connections it may have open at most."""
        return nodes * (self.workers if self.blocking else 1)


THREADS: Final = Crew("8 threads", "faults.players:ThreadsPlayer", 8)
THREAD: Final = Crew("1 thread", "faults.players:ThreadsPlayer", 1)
TASK: Final = Crew("1 task", "faults.players:TasksPlayer", 1)
TASKS: Final = Crew("64 tasks", "faults.players:TasksPlayer", 64)
FEW_TASKS: Final = Crew("8 tasks", "faults.players:TasksPlayer", 8)
RUNS: Final = Crew("asyncio.run a call", "faults.players:RunsPlayer", 1)
GREENLETS: Final = Crew("8 greenlets", "faults.players:ThreadsPlayer", 8)
MANY_THREADS: Final = Crew("50 threads", "faults.players:ThreadsPlayer", 50)
MANY_TASKS: Final = Crew("50 tasks", "faults.players:TasksPlayer", 50)
BOTH: Final = (THREADS, TASKS)


@dataclass(slots=True)
class Play:
    """Servers, proxies if there are any, and the player, while it is on."""

    servers: Sequence[Server]
    proxies: Sequence[FaultProxy]
    urls: tuple[str, ...]
    actor: Actor
    meter: LagMeter
    lags: list[Lag]

    def begin(self) -> float:
        """Start the workers; return when the first call is due."""
        due: float = self.actor.tell("begin")
        return due

    def end(self) -> Report:
        """Stop the workers; return their report."""
        lag = self.meter.worst
        report: Report = self.actor.tell("end")
        self.lags.append(Lag(lag, report.lag))
        return report

    def reset_lag(self) -> None:
        """Measure the lag from now on."""
        self.meter.reset()
        self.actor.tell("reset_lag")

    def usage(self) -> Usage:
        """Return what the player's process uses."""
        usage: Usage = self.actor.tell("usage")
        return usage

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until no node is left out; return after how many seconds, `None` if it took more."""
        waited: float | None = self.actor.tell("wait_closed", seconds)
        return waited


@dataclass(frozen=True, slots=True)
class Stage:
    """On what a row is played: kind of servers, crew, size, and the rules that are switched off.

    `meter` measures the lag of the machine; `lags` are those of the plays that have ended.
    """

    kind: str
    crew: Crew
    quick: bool
    without: tuple[str, ...]
    meter: LagMeter
    lags: list[Lag] = field(default_factory=list)

    def seconds(self, full: float, quick: float) -> float:
        """Return how long something lasts."""
        return quick if self.quick else full

    @contextmanager
    def serve(self, count: int = NODES, arguments: Sequence[str] = ()) -> Iterator[list[Server]]:
        """Run servers, which have been stopped when the block ends."""
        with ExitStack() as stack:
            servers = []
            for _ in range(count):
                servers.append(STARTS[self.kind](*arguments))
                stack.callback(servers[-1].stop)
            yield servers

    @contextmanager
    def play(  # noqa: PLR0913 - what is set up, by keyword
        self,
        count: int = NODES,
        *,
        arguments: Sequence[str] = (),
        proxied: bool = False,
        query: str = "",
        subject: str | None = None,
        filled: bool = True,
        **part: Any,
    ) -> Iterator[Play]:
        """Run servers and the crew, whose first values are written; `query` ends each URL."""
        with ExitStack() as stack:
            servers = stack.enter_context(self.serve(count, arguments))
            proxies = [stack.enter_context(FaultProxy(server.url)) for server in servers if proxied]
            urls = tuple(self.url_of(each) + query for each in proxies or servers)
            whole = self.part(urls, **part)
            actor = stack.enter_context(acting(subject or self.crew.subject, whole))
            if filled:
                actor.tell("fill")
            yield Play(servers, proxies, urls, actor, self.meter, self.lags)

    def url_of(self, each: Server | FaultProxy) -> str:
        """Return the URL of a server or proxy: a memcached is reached through pymemcache as well."""
        return each.url.replace("memcached:", f"{self.kind}:", 1)

    def part(self, urls: tuple[str, ...], **changed: Any) -> Part:
        """Return what the crew is to play."""
        part = {"rate": RATE, "keys": KEYS, "timeout": TIMEOUT, "workers": self.crew.workers}
        return Part(urls=urls, without=self.without, **{**part, **changed})


def sleep_until(moment: float) -> None:
    """Sleep until a monotonic moment."""
    time.sleep(max(0.0, moment - time.monotonic()))
