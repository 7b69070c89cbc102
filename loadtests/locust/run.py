"""What this process plays in a run: its client, its traffic, and the figures that it sees."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import gevent
from figures import Figures
from functions import Functions
from locust.env import Environment
from options import Choices, settings_of
from scenarios import Scenario, scenario_named
from traffic import Keys, Traffic
from verdicts import BY_HAND, LOCKED

from locust import FastHttpUser, User
from shardcache import Client, NodeEjected, NodeRestored, Observer, Settings
from shardcache.testing import Profile

TELLS: Final = {"locked": LOCKED, "by hand": BY_HAND}
BATCH: Final = 500  # values that are written at once before a run
NAP: Final = 0.01  # seconds between two looks at how late this process wakes up


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What every process has to know of a run: whom to ask, with what, for how long.

    `own` is whether the servers are the run's own; `target` is the node that a fault will hit.
    """

    scenario: Scenario
    profile: Profile
    urls: tuple[str, ...]
    own: bool
    target: str
    rate: float
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Return it as it travels to the workers."""
        profile = {field.name: getattr(self.profile, field.name) for field in fields(Profile)}
        profile["mix"] = dict(self.profile.mix)
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "profile": profile, "scenario": self.scenario.name}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Return the part that travelled here."""
        profile = dict(plain["profile"])
        for field in ("sizes", "ttls"):
            profile[field] = tuple(tuple(pair) for pair in profile[field])
        return cls(
            **{
                **plain,
                "scenario": scenario_named(plain["scenario"]),
                "profile": Profile(**profile),
                "urls": tuple(plain["urls"]),
            }
        )

    @property
    def in_process(self) -> bool:
        """Return whether the nodes are in memory: each client then has its own values."""
        return all(url.startswith("memory:") for url in self.urls)

    def settings(self) -> Settings:
        """Return the settings of a client of the run's servers."""
        return settings_of(self.urls, self.scenario, own=self.own)


def fill(client: Client, keys: Keys) -> None:
    """Write the value of every key of a profile that is read."""
    by_ttl: dict[float | None, dict[str, bytes]] = {}
    for rank, key in enumerate(keys.values(), 1):
        by_ttl.setdefault(keys.ttl(rank), {})[key] = keys.value(key, rank)
    for ttl, values in by_ttl.items():
        items = list(values.items())
        for begin in range(0, len(items), BATCH):
            client.set_many(dict(items[begin : begin + BATCH]), ttl)


class Run:
    """The run of this process. There is one at a time, `current`; users call through it."""

    client: Client
    keys: Keys
    traffic: Traffic
    functions: Functions
    part: Part

    def __init__(self) -> None:
        self.figures = Figures()
        self.calls = 0
        self.ended = False
        self._zero: float | None = None
        self._cpu = 0.0
        self._meter: gevent.Greenlet | None = None

    def start_clock(self) -> None:
        """Begin to count seconds from now."""
        self._zero = time.perf_counter()

    def moment(self) -> float:
        """Return the seconds since the run began; 0 before."""
        return 0.0 if self._zero is None else time.perf_counter() - self._zero

    def moment_of(self, monotonic: float) -> float:
        """Return the moment of the run at which this machine's monotonic clock showed that time."""
        return monotonic - time.monotonic() + self.moment()

    def begin(self, part: Part, seed: int) -> None:
        """Make the client and the traffic of this process; `seed` is its number among others."""
        self.part = part
        self.figures = Figures()
        self.calls = 0
        self.ended = False
        self.client = Client.from_settings(part.settings(), observers=[Watch(self)])
        self.keys = Keys(part.profile)
        self.traffic = Traffic(self.keys, seed)
        self.functions = Functions(
            self.client,
            part.seconds,
            lambda how: self.figures.happen(self.moment(), TELLS[how]),
        )
        if part.in_process:
            fill(self.client, self.keys)
        self.start_clock()
        self._cpu = time.process_time()
        self._meter = gevent.spawn(self._measure_lag)

    def end(self) -> None:
        """Stop measuring, and close the client. The second time it does nothing."""
        if self._meter is None:
            return
        self._meter.kill()
        self._meter = None
        self.ended = True
        self.client.close()

    def take(self) -> dict[str, Any]:
        """Return the figures since they were last taken."""
        cpu = time.process_time()
        self.figures.count(self.moment(), "", "cpu", cpu - self._cpu)
        self._cpu = cpu
        return self.figures.take()

    def add_node(self, url: str) -> None:
        """Let the client know one more node."""
        self.client.add_node(url)

    def _measure_lag(self) -> None:
        while True:
            began = time.perf_counter()
            gevent.sleep(NAP)
            late = time.perf_counter() - began - NAP
            self.figures.lag(self.moment(), max(0.0, late))


class Watch(Observer):
    """Tells a run which nodes its client leaves out, and which it asks again."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def node_ejected(self, event: NodeEjected) -> None:
        """Take note that a node is left out."""
        self._run.figures.happen(self._run.moment(), "ejected", event.node.name)

    def node_restored(self, event: NodeRestored) -> None:
        """Take note that a node is asked again."""
        self._run.figures.happen(self._run.moment(), "restored", event.node.name)


def cast_of(environment: Environment, scenario: Scenario) -> list[type[User]]:
    """Return the classes of users that play a scenario, of those that Locust was told to use."""
    cast = [one for one in environment.user_classes if one.__name__ in scenario.cast]
    return cast or environment.user_classes


def visits_pages(environment: Environment, scenario: Scenario) -> bool:
    """Return whether any of the users asks the example application."""
    return any(issubclass(one, FastHttpUser) for one in cast_of(environment, scenario))


def choices_of(environment: Environment) -> Choices:
    """Return the checked options of an environment."""
    options: Namespace = environment.parsed_options
    return Choices.of(options)


current: Final = Run()
