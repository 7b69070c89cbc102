"""The keys of a stopped node are cacheable again, on real servers."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest

from operations.harness import EventLog
from shardcache import CallDetoured, ConfigurationError, Gutter, NodeEjected
from shardcache.clients.construction import build_failover
from shardcache.core.capabilities import EVERYTHING, PLAIN
from shardcache.core.placement.topology import Topology
from shardcache.errors import NodeTimeoutError
from shardcache.operations.cluster.members import Member
from shardcache.settings import Settings
from shardcache.strategies.rendezvous import Rendezvous
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

COUNT = 60
KEYS = [f"k{number}" for number in range(COUNT)]
KINDS = ["memcached", "redis"]


@pytest.fixture(params=KINDS)
def make_server(request):
    """Return what starts a server of each kind for one test."""
    return request.getfixturevalue(f"make_{request.param}")


@pytest.fixture
def make(mode):
    """Return a maker of clients of each kind, closed at the end."""
    with contextlib.ExitStack() as stack:

        def made(servers, **options):
            urls = [server.url for server in servers]
            client = make_client(mode, urls, **{"timeout": 0.2, **options})
            stack.callback(client.close)
            return client

        yield made


def eject(client, server, strike):
    """Stop or kill a server, and call for its keys until it is ejected; return these."""
    strike(server)
    name = server.url.partition("//")[2]
    mine = [key for key in KEYS if client.node_for(key).name == name]
    while not client.ejected:
        client.get(mine[0])
    return mine


@pytest.mark.parametrize("strike", ["pause", "kill"])
def test_a_cached_function_is_called_once_a_key(make, make_server, strike):
    """With one of three nodes out, by one call and by one batch."""
    servers = [make_server() for _ in range(3)]
    client = make(servers, failover="next")
    eject(client, servers[0], getattr(type(servers[0]), strike))
    calls = []

    for _ in range(4):
        for key in KEYS:
            value = client.get_or_set(key, lambda key=key: calls.append(key) or key, 600)
            assert value == key
    assert sorted(calls) == sorted(KEYS)
    batch = [f"m{key}" for key in KEYS]

    def load(keys):
        calls.extend(keys)
        return {key: key for key in keys}

    for _ in range(3):
        assert client.get_or_set_many(batch, load, 600) == {key: key for key in batch}
    assert len(calls) == len(set(calls)) == 2 * COUNT


def test_without_it_they_are_recomputed_at_every_call(make, make_server):
    """As in every client that reads a dead node's keys as misses."""
    servers = [make_server() for _ in range(3)]
    client = make(servers)
    mine = eject(client, servers[0], type(servers[0]).kill)
    calls = []
    for _ in range(4):
        client.get_or_set(mine[0], lambda: calls.append(1) or 1, 600)
    assert len(calls) == 4


def test_values_live_for_the_cap_on_spare_nodes(make, make_server):
    """They are on none of the other nodes, and are gone after a second or two."""
    servers, spare = [make_server() for _ in range(2)], make_server()
    client = make(servers, failover=Gutter(spare.url, ttl_cap=1.0))
    mine = eject(client, servers[0], type(servers[0]).kill)
    assert client.set_many(dict.fromkeys(mine, "v"), ttl=600) == []
    stored = time.monotonic()
    assert client.get_many(mine) == dict.fromkeys(mine, "v")
    assert {client.stand_in_for(key) for key in mine} == set(client.gutter_nodes)
    gutter = client.counters()[f"gutter {client.gutter_nodes[0].name}"]
    assert gutter["hits"] == len(mine)
    eventually(lambda: client.get_many(mine) == {}, within=5)
    assert time.monotonic() - stored < 4


def test_a_node_that_returns_with_its_memory_has_what_it_had(make, make_server):
    """What was written on the stand-in meanwhile is not found on it, and cannot be older there."""
    servers = [make_server() for _ in range(3)]
    log = EventLog(CallDetoured, NodeEjected)
    client = make(servers, failover="next", observers=[log])
    mine = eject(client, servers[0], type(servers[0]).pause)
    assert client.set_many(dict.fromkeys(mine, "new"), ttl=600) == []
    assert client.get_many(mine) == dict.fromkeys(mine, "new")
    assert client.delete_many(mine) == len(mine)
    assert client.get_many(mine) == {}
    name = client.node_for(mine[0]).name
    assert client.counters()[name]["detoured_calls"] == len(log.of(CallDetoured)) > 0
    assert client.counters()[name]["refused_calls"] > 0  # the deletes
    servers[0].resume()
    eventually(lambda: not client.ejected, within=7)
    assert client.stand_in_for(mine[0]) is None
    assert client.set(mine[0], "newer", ttl=600) is True
    assert client.get(mine[0]) == "newer"


def test_no_old_value_is_read_once_its_own_node_is_back(make, make_server):
    """What a stand-in took meanwhile, by a `set`, an `add` or a count, is deleted there first."""
    servers = [make_server() for _ in range(3)]
    client = make(servers, failover="next")
    before = {f"k{number}": 1 for number in range(60)}
    assert client.set_many(before, ttl=600) == []
    mine = eject(client, servers[0], type(servers[0]).pause)
    kinds = [mine[place::3] for place in range(3)]
    assert client.set_many(dict.fromkeys(kinds[0], 2), ttl=600) == []
    assert all(client.add(key, 2, ttl=600) for key in kinds[1])
    assert all(client.incr(key, initial=2, ttl=600) == 2 for key in kinds[2])
    assert client.get_many(mine) == dict.fromkeys(mine, 2)
    servers[0].resume()
    eventually(lambda: not client.ejected, within=7)
    assert client.get_many(mine) == {}


def test_memcached_stands_in_for_redis(make, make_redis, make_memcached):
    """Each server gets the commands that it knows, whichever the key's own node is."""
    redis, memcached = make_redis(), make_memcached()
    client = make([redis], failover=Gutter(memcached.url))
    eject(client, redis, type(redis).kill)
    assert client.set("v", {"a": 1}, ttl=600) is True
    assert client.get("v") == {"a": 1}
    assert client.incr("n", initial=1) == 1
    assert client.decr("n", 3, floor=None) == -2
    assert client.ttl("v") == pytest.approx(60, abs=2)
    calls = []
    for _ in range(3):
        client.get_or_set("f", lambda: calls.append(1) or 7, 600, lock="shard", stale=5)
    assert calls == [1]


def test_a_view_and_a_change_of_nodes_keep_it(make, make_server):
    """Both share the list of stand-ins."""
    servers = [make_server() for _ in range(3)]
    client = make(servers[:2], failover="next", clearable=True)
    view = client.view(namespace="other")
    client.add_node(servers[2].url)
    eject(client, servers[0], type(servers[0]).kill)
    mine = [key for key in KEYS if view.stand_in_for(key) is not None]
    assert mine
    assert view.set_many(dict.fromkeys(mine, 1)) == []
    assert view.get_many(mine) == dict.fromkeys(mine, 1)
    assert view.clear() is True
    assert view.get_many(mine) == {}


def test_a_view_keeps_the_stand_ins(mode):
    """With nodes for locks too: what a call that goes on counts there is shown."""
    nodes, locks = [[f"memory://{kind}{n}" for n in range(3)] for kind in ("cache", "lock")]
    client = make_client(mode, nodes, failover="next", lock_nodes=locks)
    member = client._cluster.members["cache0"]
    member.health.eject(NodeTimeoutError("silent", "cache0"), time.monotonic(), 0.5)
    key = next(key for key in KEYS if client.node_for(key).name == "cache0")
    _, stand_in, _ = client._cluster.route(key)
    client.view(namespace="other")
    assert client._cluster.route(key)[1] is stand_in
    client.close()


def test_settings_reach_the_client(mode):
    """By name or as spare nodes, which are closed with it; a view has the same."""
    settings = Settings.from_url("memory://a,b?failover=memory://spare")
    made = make_client(mode, "memory://a,b", failover=Gutter("memory://spare"))
    assert made.failover == settings.failover
    assert [node.name for node in made.gutter_nodes] == ["spare"]
    assert list(made.counters()) == ["a", "b", "gutter spare"]
    assert list(made.ping()) == ["a", "b", "gutter spare"]
    assert made.view().failover == made.failover
    made.close()
    made = make_client(mode, "memory://a")
    assert (made.failover, made.gutter_nodes, made.stand_in_for("k")) == ("miss", (), None)
    made.close()


def test_a_spare_node_must_be_able_to_recompute():
    """It is refused when the client is made, not when it is needed."""
    settings = Settings.of(nodes="memory://a,b", failover=Gutter("memory://plain"))
    topology = Topology(settings.nodes, Rendezvous())

    def build(nodes, supports=PLAIN):
        return {node.name: Member(node, SimpleNamespace(supports=supports)) for node in nodes.nodes}

    assert build_failover(settings, topology, build(topology), build) is not None
    with pytest.raises(ConfigurationError) as raised:
        build_failover(settings, topology, build(topology, EVERYTHING), build)
    assert len(raised.value.faults) == 2
    assert raised.value.faults[0].startswith("failover: plain cannot stand in for a: it has no CAS")
