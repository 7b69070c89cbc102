"""The example strategy keeps the contract, and the plugin is found through its entry point."""

from __future__ import annotations

import pytest
from shardcache_example.observer import SLOW, SlowCalls, slow_calls
from shardcache_example.strategy import Sha256

from shardcache import CallFinished, Client, ConfigurationError, Node
from shardcache.core.placement.strategy import Strategy
from shardcache.plugin.manager import load
from shardcache.testing.strategy import StrategyContract


class TestSha256(StrategyContract):
    """The strategy keeps the contract of all strategies."""

    @pytest.fixture
    def strategy(self) -> Strategy:
        """Return the strategy under test."""
        return Sha256()


def test_the_entry_point_is_found():
    """Installing the distribution is all there is to do."""
    (info,) = [plugin for plugin in load().infos if plugin.name == "example"]
    assert info.distribution == "shardcache-example"
    assert info.offers == (
        "strategy sha256",
        "backend sqlite",
        "codec json-zlib",
        "locks sqlite",
    )


def test_a_client_uses_the_strategy_by_name():
    """A name in a URL is enough."""
    client = Client.from_url("memory://a,b,c?strategy=sha256")
    assert client.set("k", 1)
    assert client.get("k") == 1
    assert repr(client) == "<Client [3 nodes] sha256>"


def test_options_are_refused():
    """There are no options, and the error says so."""
    with pytest.raises(ConfigurationError, match="no options"):
        Client.from_url("memory://a?strategy=sha256:rounds=3")


def test_slow_calls_are_counted():
    """Only what is slow is counted, by node."""
    observer = SlowCalls()
    node = Node("memory://a")
    observer.call_finished(CallFinished("get", node, SLOW / 2))
    observer.call_finished(CallFinished("get", node, SLOW * 2))
    assert observer.counts == {"a": 1}


def test_every_client_is_watched():
    """The observer comes with the plugin."""
    client = Client("memory://a")
    assert slow_calls in client._cluster.observers.observers
