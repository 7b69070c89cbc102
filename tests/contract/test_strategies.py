"""Every strategy of the package keeps the contract that it asks of plugins."""

from __future__ import annotations

from typing import ClassVar

import pytest

from shardcache.core.placement.strategy import Strategy
from shardcache.plugin.manager import load
from shardcache.settings import parse_options
from shardcache.testing.strategy import StrategyContract


def made(choice: str) -> Strategy:
    """Make a strategy from a text such as `ketama:profile=pylibmc`."""
    name, options = parse_options(choice)
    return load().strategies[name](**options)


class TestMinimal(StrategyContract):
    """Those of which a leaving node takes only its own keys along."""

    @pytest.fixture(
        params=[
            "rendezvous",
            "rendezvous:slots=262144",
            "ketama",
            "ketama:profile=pylibmc",
            "ketama:profile=libketama",
            "ketama:profile=twemproxy",
            "ketama:profile=spymemcached",
            "pymemcache",
            "jump",
        ]
    )
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        """Give each in turn."""
        return made(request.param)


class TestOthers(StrategyContract):
    """Those that move some other keys as well."""

    minimal: ClassVar[bool] = False

    @pytest.fixture(params=["maglev", "modulo", "modulo:profile=libmemcached", "crc16"])
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        """Give each in turn."""
        return made(request.param)
