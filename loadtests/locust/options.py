"""What a run can be told: by the command line, the environment, or the form of the web page."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import profiles
from faults import KINDS
from scenarios import SCENARIOS, Scenario, scenario_named
from traffic import NAMESPACE

from shardcache import Settings
from shardcache.testing import Profile

DEFAULT_SECONDS: Final = 30.0

# Locust's parser is argparse's with more parameters, which its own types do not tell: hence `Any`.


def add_to(parser: Any) -> None:
    """Add our options to Locust's."""
    parser.add_argument(
        "--cache-url",
        env_var="SHARDCACHE_URL",
        default="",
        is_secret=True,
        help="The servers to ask; several URLs between blanks. Default: the run starts its own.",
    )
    parser.add_argument(
        "--own-servers",
        env_var="SHARDCACHE_OWN_SERVERS",
        choices=list(KINDS),
        default="memcached",
        help="What to start without --cache-url: three of a kind, or three of each.",
    )
    parser.add_argument(
        "--scenario",
        env_var="SHARDCACHE_SCENARIO",
        default="steady",
        choices=list(SCENARIOS),
        help="What to play: " + "; ".join(f"{one.name}: {one.about}" for one in SCENARIOS.values()),
    )
    parser.add_argument(
        "--shape",
        env_var="SHARDCACHE_SHAPE",
        default="flat",
        choices=["flat", "ramp", "spike"],
        help="Users over time: all at once, more and more, or three times as many in the middle.",
    )
    parser.add_argument(
        "--rate",
        env_var="SHARDCACHE_RATE",
        type=float,
        default=0.0,
        help="Calls a second of each user. Default: the scenario's.",
    )
    parser.add_argument(
        "--report",
        env_var="SHARDCACHE_REPORT",
        default="",
        help="Write figures, a picture and the page of all pictures to this directory.",
    )
    parser.add_argument(
        "--yes",
        env_var="SHARDCACHE_YES",
        action="store_true",
        help="Run although the servers of --cache-url hold keys.",
    )
    _adopt_profile(parser)


def _adopt_profile(parser: Any) -> None:
    """Give Locust's own `--profile`, which only labels a run, our meaning beside its own."""
    for action in parser._actions:
        if action.dest == "profile":
            action.env_var = "SHARDCACHE_PROFILE"
            action.help = (
                f"The traffic: {', '.join(profiles.known())}, or a file that ends in .toml."
                f" Default: {profiles.DEFAULT}."
            )


class RefusedError(Exception):
    """A run that cannot begin; says why, in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options of one run, checked."""

    scenario: Scenario
    profile: Profile
    urls: tuple[str, ...]
    own: str
    shape: str
    users: int
    spawn_rate: float
    rate: float
    seconds: float
    report: str
    yes: bool

    @classmethod
    def of(cls, options: Namespace) -> Self:
        """Return what was chosen; raise `RefusedError` or `ConfigurationError`."""
        scenario = scenario_named(options.scenario)
        profile = profiles.find(options.profile)
        urls = tuple(options.cache_url.split())
        if urls:
            settings_of(urls, scenario)
            if scenario.fault:
                raise RefusedError(
                    f"the scenario {scenario.name} needs servers that it may harm: leave out"
                    " --cache-url and SHARDCACHE_URL, and the run starts its own"
                )
        users = options.num_users or scenario.users
        rate = options.rate or scenario.rate
        if rate < 0:
            raise RefusedError(f"--rate must be above zero, not {rate:g}")
        return cls(
            scenario=scenario,
            profile=profile,
            urls=urls,
            own="" if urls else options.own_servers,
            shape=options.shape,
            users=users,
            spawn_rate=options.spawn_rate or min(users, 100),
            rate=rate,
            seconds=float(options.run_time or DEFAULT_SECONDS),
            report=options.report,
            yes=options.yes,
        )


def settings_of(urls: tuple[str, ...], scenario: Scenario, *, own: bool = False) -> Settings:
    """Return the settings of a client of these servers, in the kit's own namespace."""
    if own:
        return Settings.of(nodes=urls, namespace=NAMESPACE, timeout=scenario.timeout)
    if len(urls) > 1:
        return Settings.of(nodes=urls, namespace=NAMESPACE)
    return replace(Settings.from_url(urls[0]), namespace=NAMESPACE)
