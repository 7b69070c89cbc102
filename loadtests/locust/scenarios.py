"""The scenarios: which users call, how much, and when a fault begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from figures import STEP, Window

from shardcache import ConfigurationError

Fault = Literal["kill", "stop", "add", "slow"]

FAILOVERS: Final = ("miss", "next", "gutter")

LEAST: Final = (
    18.0  # seconds of a run with a fault: a third of it is enough for a node to come back
)
WARM: Final = 1.0  # seconds after the last user came until figures count
SETTLED: Final = 1.5  # seconds after a fault until its node is out at the latest


@dataclass(frozen=True, slots=True)
class Scenario:
    """One play: `users` of some classes, a `fault` after a third of the run, if any.

    `timeout` is that of the client's calls in seconds, where the run starts the servers itself.
    """

    name: str
    about: str
    user_classes: tuple[str, ...]
    users: int = 20
    rate: float = 20.0
    timeout: float = 0.5
    fault: Fault | None = None


# With faults, the timeout is the one of the rig that the limits were set on: 100 ms.
SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "steady",
            "the traffic of the profile, with cached functions and locks beside it",
            ("TrafficUser", "CachedUser", "LockUser"),
        ),
        Scenario(
            "stampede",
            "a hot value expires under all users: half with cached(lock=True), half by hand",
            ("StampedeUser",),
            users=200,
            rate=4.0,
        ),
        Scenario(
            "app",
            "the same for a page of the example application, behind two processes of uvicorn",
            ("PageUser", "UnprotectedPageUser"),
            users=60,
            rate=4.0,
        ),
        Scenario(
            "examples",
            "the same for a page of each application of docs/examples: Django, Flask, FastAPI",
            ("DjangoUser", "FlaskUser", "FastAPIUser"),
            users=60,
            rate=6.0,
        ),
        Scenario(
            "node-killed",
            "a node is killed, and started again, empty, on the same port",
            ("TrafficUser",),
            timeout=0.1,
            fault="kill",
        ),
        Scenario(
            "node-stopped",
            "a node accepts connections and answers nothing, and then goes on",
            ("TrafficUser",),
            timeout=0.1,
            fault="stop",
        ),
        Scenario(
            "node-added",
            "one more node comes in, and keys move to it",
            ("TrafficUser",),
            timeout=0.1,
            fault="add",
        ),
        Scenario(
            "slow-node",
            "a node answers 20 ms late",
            ("TrafficUser",),
            timeout=0.1,
            fault="slow",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Variant:
    """How the client of a run meets its fault.

    `failover` is its setting, with one spare node for `gutter`; a node is added with `warm_for`
    seconds of warm-up.
    """

    failover: str = "miss"
    warm_for: float = 0.0

    @property
    def suffix(self) -> str:
        """Return what tells its files from those of a client as it comes.

        >>> Variant().suffix, Variant(failover="next").suffix, Variant(warm_for=600).suffix
        ('', '-next', '-warm-600')
        """
        failover = "" if self.failover == "miss" else f"-{self.failover}"
        return failover + (f"-warm-{self.warm_for:g}" if self.warm_for else "")


def scenario_named(name: str) -> Scenario:
    """Return a scenario; raise `ConfigurationError` with those that are known."""
    if name not in SCENARIOS:
        raise ConfigurationError(f"no scenario {name!r} (known: {', '.join(SCENARIOS)})")
    return SCENARIOS[name]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When a run is before, during and after its fault: a third of it each.

    `spawned` is when all users were there.
    """

    seconds: float
    spawned: float = 0.0

    @property
    def fault(self) -> float:
        """Return when the fault begins: where a step does."""
        return self.seconds / 3 // STEP * STEP

    @property
    def fault_end(self) -> float:
        """Return when the fault ends."""
        return self.seconds * 2 / 3 // STEP * STEP

    @property
    def whole(self) -> Window:
        """Return all of the run that counts."""
        return Window(self.spawned + WARM, self.seconds)

    @property
    def before(self) -> Window:
        """Return the time without a fault, against which the rest is measured."""
        return Window(self.spawned + WARM, self.fault)

    @property
    def during(self) -> Window:
        """Return the time of the fault."""
        return Window(self.fault, self.fault_end)

    @property
    def settled(self) -> Window:
        """Return the time of the fault from when the client has found out about it."""
        return Window(self.fault + SETTLED, self.fault_end)

    @property
    def after(self) -> Window:
        """Return the time since the fault is over."""
        return Window(self.fault_end, self.seconds)
