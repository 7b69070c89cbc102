"""The part of this process in a run: its client, its traffic and its figures."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

import gevent
from figures import Figures
from functions import Functions
from locust.env import Environment
from options import Choices
from scenarios import Scenario, Timeline, Variant, scenario_named
from traffic import DELETED, VALUES, Keys, Traffic
from verdicts import BY_HAND, LOCKED

from locust import FastHttpUser, User
from shardcache import (
    Client,
    Gutter,
    Node,
    NodeEjected,
    NodeRestored,
    Observer,
    Settings,
    TimeoutPolicy,
)
from shardcache.testing import Profile

SAYS: Final = {"locked": LOCKED, "by hand": BY_HAND}
BATCH: Final = 500  # values that are written at once before a run
log = logging.getLogger("shardcache.loadtest")

APP: Final = "app"  # the application of the load tests, as a site

NODES: Final = ("nodes", "lock_nodes")
TRAVELS: Final = ("strategy", "namespace", "on_error", "pool_size")  # of the settings, as they are
NAP: Final = 0.01  # seconds between two checks of how late this process wakes up


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every process must know of a run: nodes, traffic, duration.

    `number` tells one run from another; `target` is the node that a fault will hit; `sites` are the
    URLs of the applications that users ask.
    """

    number: str
    scenario: Scenario
    variant: Variant
    profile: Profile
    settings: Settings
    target: str
    rate: float
    seconds: float
    sites: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as it is sent to the workers."""
        profile = {field.name: getattr(self.profile, field.name) for field in fields(Profile)}
        settings = {name: getattr(self.settings, name) for name in TRAVELS}
        timeout = self.settings.timeout
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "scenario": self.scenario.name,
            "variant": [self.variant.failover, self.variant.warm_for],
            "profile": {**profile, "mix": dict(self.profile.mix)},
            "settings": {
                **settings,
                "timeout": [timeout.call, timeout.connect],
                "failover": _plain_failover(self.settings),
                **{name: _plain_nodes(getattr(self.settings, name)) for name in NODES},
            },
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Return the plan that was received."""
        profile, settings = dict(plain["profile"]), dict(plain["settings"])
        for name in ("sizes", "ttls"):
            profile[name] = tuple(tuple(pair) for pair in profile[name])
        for name in NODES:
            nodes = settings[name]
            settings[name] = nodes and tuple(Node(url, name, weight) for url, name, weight in nodes)
        settings["timeout"] = TimeoutPolicy(*settings["timeout"])
        if isinstance(settings["failover"], list):
            settings["failover"] = Gutter(settings["failover"])
        made = {
            "scenario": scenario_named(plain["scenario"]),
            "variant": Variant(*plain["variant"]),
            "profile": Profile(**profile),
            "settings": Settings(**settings),
        }
        return cls(**{**plain, **made})

    @property
    def timeline(self) -> Timeline:
        """Return when the fault begins and ends."""
        return Timeline(self.seconds)

    @property
    def in_process(self) -> bool:
        """Return whether the nodes are in memory: each client then has its own values."""
        return all(node.url.startswith("memory:") for node in self.settings.nodes)


def _plain_nodes(nodes: Sequence[Node] | None) -> list[list[Any]] | None:
    return nodes and [[node.url, node.name, node.weight] for node in nodes]


def _plain_failover(settings: Settings) -> str | list[str]:
    """Return a failover as it is sent: `miss`, `next`, or the URLs of the spare nodes."""
    failover = settings.failover
    return [node.url for node in failover.nodes] if isinstance(failover, Gutter) else failover


def fill(client: Client, keys: Keys) -> None:
    """Write every key of a profile that is read or deleted."""
    log.info("writing %s values to %d nodes", f"{keys.profile.keys:,}", len(client.nodes))
    by_ttl: dict[float | None, dict[str, bytes]] = {}
    spaces = [VALUES, *([DELETED] if "delete" in keys.profile.mix else [])]
    for rank in range(1, keys.profile.keys + 1):
        for space in spaces:
            key = keys.key(space, rank)
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
    plan: Plan

    def __init__(self) -> None:
        self.figures = Figures()
        self.calls = 0
        self.ended = False
        self.loaded: dict[str, float] = {}  # keys, and when each was last read from its source
        self._number = ""  # of the run; none has begun
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

    def begin(self, plan: Plan, seed: int) -> None:
        """Create the client and the traffic of this process; `seed` is the number of the process."""
        self.plan = plan
        self.figures = Figures()
        self.calls = 0
        self.ended = False
        self.loaded = {}
        self._number = plan.number
        self.client = Client.from_settings(plan.settings, observers=[Watch(self)])
        self.keys = Keys(plan.profile)
        self.traffic = Traffic(self.keys, seed)
        self.functions = Functions(
            self.client,
            plan.seconds,
            lambda how: self.figures.event(self.moment(), SAYS[how]),
        )
        if plan.in_process:
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
        """Return the figures since they were last taken, and of which run they are."""
        cpu = time.process_time()
        self.figures.count(self.moment(), "", "cpu", cpu - self._cpu)
        self._cpu = cpu
        return {"run": self._number, "figures": self.figures.take(), "final": self.ended}

    def add_node(self, url: str) -> None:
        """Add one more node to the client, with the warm-up of the run if it has one."""
        self.client.add_node(url, warm_for=self.plan.variant.warm_for)

    def _measure_lag(self) -> None:
        while True:
            began = time.perf_counter()
            gevent.sleep(NAP)
            late = time.perf_counter() - began - NAP
            self.figures.lag(self.moment(), max(0.0, late))


class Watch(Observer):
    """An observer that records in a run which nodes its client ejects and restores."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def node_ejected(self, event: NodeEjected) -> None:
        """Record that a node was ejected."""
        self._run.figures.event(self._run.moment(), "ejected", event.node.name)

    def node_restored(self, event: NodeRestored) -> None:
        """Record that a node was restored."""
        self._run.figures.event(self._run.moment(), "restored", event.node.name)


def user_classes_of(environment: Environment, scenario: Scenario) -> list[type[User]]:
    """Return the classes of users that play a scenario, of those that Locust was told to use."""
    wanted = scenario.user_classes
    chosen = [one for one in environment.user_classes if one.__name__ in wanted]
    return chosen or environment.user_classes


def sites_of(environment: Environment, scenario: Scenario) -> Sequence[str]:
    """Return the names of the applications that the users of a scenario ask."""
    classes = user_classes_of(environment, scenario)
    return sorted({one.site for one in classes if issubclass(one, FastHttpUser)})


def choices_of(environment: Environment) -> Choices:
    """Return the checked options of an environment."""
    options: Namespace = environment.parsed_options
    return Choices.of(options)


current: Final = Run()
