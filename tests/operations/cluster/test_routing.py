"""The place of a key: its name, its owner, and the nodes after the owner."""

from __future__ import annotations

import pytest

from shardcache import Client
from shardcache.core.reserved_keys import TAGS, own_key
from shardcache.operations.cluster.routing import hashed_by_name, owner_by_name
from shardcache.plugin.manager import load

NODES = [f"memory://{name}" for name in "abcde"]


@pytest.mark.parametrize("strategy", sorted(load().strategies))
@pytest.mark.parametrize("namespace", ["", "shop"])
def test_the_hashed_bytes_of_a_place_lead_to_its_owner_first(strategy, namespace):
    """The nodes after the owner are found from the place, without another look at the key."""
    with Client(NODES, strategy=strategy, namespace=namespace) as client:
        cluster = client._cluster
        for key in (f"k{number}" for number in range(50)):
            name, member, hashed = cluster.route(key)
            assert name == cluster.keys.canonical(key.encode())
            assert hashed == client.hashed(key)
            preferred = cluster.preferred(hashed, len(NODES))
            assert preferred[0] is member
            assert [each.node for each in preferred] == client.nodes_for(key, len(NODES))
            assert len(set(preferred)) == len(NODES)


@pytest.mark.parametrize("strategy", sorted(load().strategies))
@pytest.mark.parametrize("namespace", ["", "shop"])
def test_a_name_leads_to_the_owner_of_its_key(strategy, namespace):
    """Also the name of a tag's version, and one that was escaped."""
    with Client(NODES, strategy=strategy, namespace=namespace) as client:
        cluster = client._cluster
        hashed = hashed_by_name(cluster.topology, cluster.keys)
        owner = owner_by_name(cluster.topology, cluster.members, hashed)
        for key in ["4:shop:k", "~sc:k", *(f"k{number}" for number in range(50))]:
            name, member, _ = cluster.route(key)
            assert owner(name) is owner(own_key(TAGS, name)) is member
