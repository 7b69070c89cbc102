"""The settings and the topology of a client can be copied and sent to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from shardcache import AsyncClient, Client, ClientCopyError, Settings
from shardcache.strategies.rendezvous import Rendezvous

CLIENTS = [Client, AsyncClient]
WAYS = [copy.copy, copy.deepcopy, pickle.dumps]
STRATEGIES = [
    *("rendezvous", "ketama:profile=twemproxy", "maglev", "jump", "pymemcache", "modulo", "crc16"),
    "rendezvous:hash_tags=true",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_refuses_to_be_copied(kind, way):
    """Two clients over the same connections would close each other's."""
    client = kind("memory://a")
    with pytest.raises(ClientCopyError, match=r"from_settings\(settings\)") as raised:
        way(client)
    assert isinstance(raised.value, TypeError)
    assert kind.__name__ in str(raised.value)


@pytest.mark.parametrize("kind", CLIENTS)
def test_settings_make_the_same_client_elsewhere(kind):
    """Settings come through pickle, and make a client that places every key equally."""
    settings = Settings.of(
        nodes=["memory://a", "memory://b"], strategy="ketama", codec="pickle", secret="x" * 16
    )
    sent = pickle.loads(pickle.dumps(settings))
    assert sent == settings
    made = kind.from_settings(sent)
    assert made.fingerprint == kind.from_settings(settings).fingerprint


@pytest.mark.parametrize(
    "way", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_topology_is_copied_and_pickled(strategy, way):
    """It places every key as before."""
    client = Client(["memory://a", "memory://b", "memory://c"], strategy=strategy)
    change = client.add_node("memory://d")
    for topology in (client.topology, way(client.topology), way(change).after):
        assert topology.nodes == client.nodes
        assert topology.fingerprint == client.fingerprint
        keys = [b"key %d" % number for number in range(200)]
        assert all(topology.owner(key) == client.topology.owner(key) for key in keys)
    assert str(way(change)) == str(change)


class LocalStrategy(Rendezvous):
    """A strategy with something that cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.function = lambda: None


def test_a_strategy_that_cannot_be_pickled_is_named():
    """A user's strategy is for the user to make picklable."""
    client = Client("memory://a", strategy=LocalStrategy())
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(client.topology)
