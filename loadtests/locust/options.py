"""What a run can be told: by the command line, the environment, or the form of the web page."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import profiles
from scenarios import FAILOVERS, LEAST, SCENARIOS, Scenario, Variant, scenario_named
from servers import KINDS
from traffic import NAMESPACE

from shardcache import Settings
from shardcache.testing import Profile

DEFAULT_SECONDS: Final = 30.0
KEPT: Final = "(as it was given)"  # stands for the URL on the web page, which has no login

# Variables that a program reads besides SHARDCACHE_URL, and the kit too.
SETTINGS: Final = [
    f"SHARDCACHE_{name}"
    for name in ("CONFIG", "STRATEGY", "TIMEOUT", "CONNECT_TIMEOUT", "POOL_SIZE", "LOCK_NODES")
]

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
        "--failover",
        env_var="SHARDCACHE_LOAD_FAILOVER",
        choices=FAILOVERS,
        default="miss",
        help="Where the keys of a node that is out are kept, in node-killed and node-stopped.",
    )
    parser.add_argument(
        "--warm-for",
        env_var="SHARDCACHE_LOAD_WARM_FOR",
        type=float,
        default=0.0,
        help="Seconds for which node-added reads moved keys on their old nodes.",
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
    """Let Locust's own `--profile`, which only labels a run, choose the traffic as well."""
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
    variant: Variant
    profile: Profile
    settings: Settings | None
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
        settings = _settings(options)
        variant = Variant(options.failover, options.warm_for)
        if scenario.fault:
            _check_fault(scenario, settings, options)
        _check_variant(scenario, variant)
        users = options.num_users or scenario.users
        rate = options.rate or scenario.rate
        if not 0 < rate < math.inf:
            raise RefusedError(f"--rate must be above zero, not {rate:g}")
        return cls(
            scenario=scenario,
            variant=variant,
            profile=profile,
            settings=settings,
            own="" if settings else options.own_servers,
            shape=options.shape,
            users=users,
            spawn_rate=options.spawn_rate or min(users, 100),
            rate=rate,
            seconds=float(options.run_time or DEFAULT_SECONDS),
            report=options.report,
            yes=options.yes,
        )


def _settings(options: Namespace) -> Settings | None:
    """Return the settings of the servers that were named, if any were.

    They are those of a program in this environment: a strategy in `SHARDCACHE_STRATEGY` counts.
    """
    url = options.given_url if options.cache_url == KEPT else options.cache_url
    urls = url.split()
    if not urls:
        return None
    environ = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    settings = Settings.from_env({**environ, "SHARDCACHE_URL": " ".join(urls)})
    # Values of the kit are bytes and numbers, which every codec takes as they are.
    return replace(settings, namespace=NAMESPACE, codec="msgpack", secret=None, default_ttl=None)


def _check_fault(scenario: Scenario, settings: Settings | None, options: Namespace) -> None:
    """Raise `RefusedError` for a fault on others' servers, or in a run that could not show it."""
    if settings is not None:
        raise RefusedError(
            f"the scenario {scenario.name} needs servers that it may harm: leave out --cache-url and"
            " SHARDCACHE_URL, and the run starts its own"
        )
    if options.run_time and options.run_time < LEAST:
        raise RefusedError(
            f"the scenario {scenario.name} needs at least {LEAST:.0f} s, a third of it for the node"
            f" to come back: -t {LEAST:.0f}s, not {options.run_time:g} s"
        )
    if options.shape != "flat":
        raise RefusedError(
            f"the scenario {scenario.name} compares with the time before its fault, so the users have"
            f" to stay the same: leave out --shape {options.shape}"
        )


def _check_variant(scenario: Scenario, variant: Variant) -> None:
    """Raise `RefusedError` for a variant in which the scenario would not differ."""
    if variant.failover != "miss" and scenario.fault not in {"kill", "stop"}:
        raise RefusedError(
            f"no node is out in the scenario {scenario.name}: leave out --failover {variant.failover}"
        )
    if variant.warm_for and scenario.fault != "add":
        raise RefusedError(
            f"no node is added in the scenario {scenario.name}: leave out --warm-for"
        )
    if not 0 <= variant.warm_for < math.inf:
        raise RefusedError(f"--warm-for must be a number of seconds, not {variant.warm_for:g}")
