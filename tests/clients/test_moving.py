"""A change of nodes with a warm-up: on both clients, on real servers, and from one kind of server to another."""

from __future__ import annotations

import gc
import time
import weakref
from datetime import timedelta

import pytest

from clients.sources import urls_of
from operations.harness import EventLog
from shardcache import Client, ConfigurationError, Node
from shardcache.core.events import TopologyChanged, WarmUpEnded
from shardcache.errors import ClientClosedError, UnknownPluginError
from shardcache.operations.cluster import moves
from shardcache.operations.cluster.cluster import Cluster
from shardcache.testing.driving import make_client

MEMORY = ["memory://a", "memory://b", "memory://c"]
ITEMS = {f"k{number}": number for number in range(300)}
TIMEOUT = 0.05  # of clients whose nodes answer at once: a change with a warm-up takes as long
PATIENT = 2.0


@pytest.fixture
def make(mode):
    """Return a maker of clients of each kind, closed at the end."""
    made = []

    def make(nodes, **options):
        made.append(make_client(mode, nodes, **{"timeout": TIMEOUT, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make):
    """Return a client of three memory nodes that hold some items."""
    client = make(MEMORY)
    client.set_many(ITEMS, ttl=1000)
    return client


class TestChanges:
    """Every way to change the nodes."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda client: client.add_node("memory://d", warm_for=600),
            lambda client: client.remove_node("a", warm_for=timedelta(minutes=10)),
            lambda client: client.set_nodes(["memory://x", "memory://y"], warm_for=600),
            lambda client: client.set_nodes(MEMORY, strategy="maglev", warm_for=600),
            lambda client: client.set_nodes(
                [Node("memory://a", weight=5), *MEMORY[1:]], warm_for=600
            ),
            lambda client: client.set_nodes(
                (Node(url, name=url[-1].upper()) for url in MEMORY), strategy="ketama", warm_for=60
            ),
        ],
        ids=["add", "remove", "replace", "strategy", "weight", "rename"],
    )
    def test_no_key_is_missed(self, client, change):
        """Keys that moved are found on their old nodes, then on their new ones."""
        changed = change(client)
        assert changed.moved > 0.1
        assert client.get_many(ITEMS) == ITEMS
        assert client.counters().moving["copied"] == pytest.approx(
            changed.moved * len(ITEMS), rel=0.5
        )
        reads = client.counters().moving["reads"]
        assert [client.get(key) for key in ITEMS] == list(ITEMS.values())
        assert client.counters().moving["reads"] == reads

    def test_without_warm_for_they_are(self, client):
        """As before."""
        client.add_node("memory://d")
        assert 0.6 < len(client.get_many(ITEMS)) / len(ITEMS) < 0.9
        assert client.counters().moving == {}

    def test_the_strategy_can_change_alone(self, client):
        """The new one is that of later changes as well."""
        client.set_nodes(MEMORY, strategy="maglev")
        client.add_node("memory://d")
        assert client.topology.strategy.name == "maglev"
        with pytest.raises(UnknownPluginError, match="magle"):
            client.set_nodes(MEMORY, strategy="magle")

    @pytest.mark.parametrize("warm_for", [-1, "ten", float("nan"), 1e9])
    def test_a_bad_length_is_refused(self, client, warm_for):
        """Nothing changes."""
        with pytest.raises(ConfigurationError, match="warm_for must"):
            client.add_node("memory://d", warm_for=warm_for)
        assert len(client.nodes) == 3

    def test_a_later_change_ends_the_warm_up_before_it(self, client):
        """What was copied by then moves on, the rest is missed."""
        client.add_node("memory://d", warm_for=600)
        client.get_many(ITEMS)
        client.remove_node("a", warm_for=600)
        assert client.get_many(ITEMS) == ITEMS
        client.set_nodes(["memory://x"])
        assert client.get_many(ITEMS) == {}
        assert client.counters().moving == {}

    def test_a_change_can_be_taken_back(self, client):
        """Keys that were copied and written are found where they come from."""
        client.remove_node("a", warm_for=600)
        client.get_many(ITEMS)
        client.set_many(dict.fromkeys(ITEMS, "new"))
        client.set_nodes(MEMORY, warm_for=600)
        assert client.get_many(ITEMS) == dict.fromkeys(ITEMS, "new")

    def test_views_take_part(self, client):
        """Those that exist, and those that are made during the warm-up, in their own namespaces."""
        view = client.view(namespace="v")
        view.set_many(ITEMS)
        client.set_nodes(["memory://x", "memory://y"], warm_for=600)
        assert view.get_many(ITEMS) == client.view(namespace="v").get_many(ITEMS) == ITEMS
        view.delete("k1")
        assert client.view(namespace="v").get("k1") is None
        assert client.get("k1") == 1

    @pytest.mark.parametrize("strategy", ["rendezvous", "ketama", "pymemcache"])
    @pytest.mark.parametrize("namespace", ["", "shop"])
    def test_the_old_node_is_found_by_every_strategy(self, make, strategy, namespace):
        """Also by those that do not hash the namespace, and for keys that look like others."""
        client = make(MEMORY, strategy=strategy, namespace=namespace)
        items = {**ITEMS, "4:shop:k": 1, "~sc:k": 2, "a b": 3}
        client.set_many(items)
        client.set_nodes(MEMORY[:2], warm_for=600)
        assert client.get_many(items) == items

    def test_keys_can_be_cleared_meanwhile(self, make):
        """Old values are gone on both nodes."""
        client = make(MEMORY, clearable=True)
        client.set_many(ITEMS)
        client.set_nodes(["memory://c", "memory://x"], warm_for=600)
        assert client.get("k1") == 1
        assert client.clear() is True
        assert client.get_many(ITEMS) == {}

    def test_a_client_that_is_turned_off_changes_as_well(self, make, monkeypatch):
        """It finds nothing, before and after."""
        monkeypatch.setenv("SHARDCACHE_DISABLED", "1")
        client = make(MEMORY)
        change = client.announce_nodes([*MEMORY, "memory://d"])
        assert [node.name for node in change.added] == ["d"]
        client.set_nodes(MEMORY[:1], warm_for=600)
        assert client.get("k1") is None


class TestAnnouncing:
    """`announce_nodes`, and `set_nodes` after it."""

    def test_keys_stay_until_the_switch(self, client):
        """And it tells what will move."""
        change = client.announce_nodes(["memory://x", "memory://y"])
        assert change.moved == 1
        assert [node.name for node in client.nodes] == ["a", "b", "c"]
        assert client.get_many(ITEMS) == ITEMS
        assert "next x" in client.counters()
        client.set_nodes(["memory://x", "memory://y"], warm_for=600)
        assert client.get_many(ITEMS) == ITEMS
        assert "old a" in client.counters()

    def test_it_is_taken_back_by_setting_the_present_nodes(self, client):
        """Then nothing is deleted on the next nodes any more."""
        client.announce_nodes(["memory://x"])
        client.set_nodes(MEMORY)
        assert set(client.counters()) == {"a", "b", "c"}

    def test_the_switch_waits_only_for_calls_that_do_not_know_it(self, make):
        """After an announcement of the same nodes it is quick."""
        client = make(MEMORY, timeout=PATIENT)
        client.announce_nodes(MEMORY[:2])
        time.sleep(PATIENT)
        began = time.monotonic()
        client.set_nodes(MEMORY[:2], warm_for=600)
        assert time.monotonic() - began < PATIENT / 2
        client.announce_nodes(MEMORY[:1])
        began = time.monotonic()
        client.set_nodes(MEMORY, warm_for=600)
        assert time.monotonic() - began > PATIENT * 0.9

    def test_an_interrupted_switch_takes_its_announcement_back(self, client, monkeypatch):
        """The nodes are as they were."""

        async def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(client._io), "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            client.set_nodes(["memory://x"], warm_for=600)
        assert set(client.counters()) == {"a", "b", "c"}
        assert client.get_many(ITEMS) == ITEMS

    def test_a_closed_client_refuses_both(self, client):
        """As every call."""
        getattr(client, "aclose", client.close)()
        with pytest.raises(ClientClosedError):
            client.announce_nodes(MEMORY)
        with pytest.raises(ClientClosedError):
            client.set_nodes(MEMORY, warm_for=1)


class TestTheEnd:
    """A warm-up ends by time, by another change, or with the client."""

    def test_the_first_call_after_it_ends_it(self, make, monkeypatch, caplog):
        """Connections to nodes that have left are closed; observers are told, and the log."""
        monkeypatch.setattr(moves, "SPREAD", 0.0)
        caplog.set_level("INFO", "shardcache")
        log = EventLog(TopologyChanged, WarmUpEnded)
        client = make(MEMORY, observers=[log])
        client.set_many(ITEMS)
        client.set_nodes(["memory://x"], warm_for=0.2)
        assert client.get_many(list(ITEMS)[:10]) == dict(list(ITEMS.items())[:10])
        time.sleep(0.2)
        assert client.get_many(list(ITEMS)[10:]) == {}
        assert set(client.counters()) == {"x"}
        assert type(client._cluster) is Cluster  # a `get` pays for no change that is over
        assert log.types() == [TopologyChanged, WarmUpEnded]
        assert log.events[1] == WarmUpEnded(reads=10, hits=10, copied=10)
        assert caplog.messages[-1] == "warm-up ended: 10 values copied from old nodes"

    def test_closing_the_client_closes_the_old_nodes(self, make, memcached_servers):
        """No connection is left."""
        urls = urls_of("memcached", memcached_servers, ())
        client = make(urls, timeout=0.5)
        client.set_many(ITEMS)
        client.remove_node(client.nodes[0].name, warm_for=600)
        client.get_many(ITEMS)
        old = client._membership.cluster.all_members[f"old {Node(urls[0]).name}"]
        assert old.backend.pool_use.open > 0
        client.close()
        assert old.backend.pool_use.open == 0


@pytest.mark.parametrize("kind", ["memcached", "redis", "mixed"])
class TestOnServers:
    """The same on real servers."""

    def test_values_move_with_their_ttl(self, make, kind, memcached_servers, redis_servers):
        """From three nodes to two of them, of whatever kind."""
        urls = urls_of(kind, memcached_servers, redis_servers)
        client = make(urls, timeout=PATIENT)
        client.set_many(ITEMS, ttl=500)
        client.set_many({f"never {key}": key for key in ITEMS}, ttl=None)
        client.remove_node(client.nodes[0].name, warm_for=600)
        assert client.get_many(ITEMS) == ITEMS
        assert len(client.get_many(f"never {key}" for key in ITEMS)) == len(ITEMS)
        moved = client.counters().moving["copied"]
        assert 0.15 < moved / 2 / len(ITEMS) < 0.55
        client.set_nodes(client.nodes)  # the warm-up is over
        assert client.get_many(ITEMS) == ITEMS
        assert all(490 < client.ttl(key) <= 501 for key in list(ITEMS)[:50])
        assert all(client.ttl(f"never {key}") == float("inf") for key in list(ITEMS)[:20])

    def test_calls_of_all_kinds(self, make, kind, memcached_servers, redis_servers):
        """Each finds a key that is on its old node only."""
        urls = urls_of(kind, memcached_servers, redis_servers)
        client = make(urls[:1], timeout=PATIENT)
        keys = [f"c{number}" for number in range(12)]
        client.set_many(dict.fromkeys(keys, 5), ttl=500)
        client.set_nodes(urls[1:2], warm_for=600)
        assert client.incr(keys[0]) == 6
        assert client.decr(keys[1], 7, floor=None) == -2
        assert client.add(keys[2], 1) is False
        assert client.replace(keys[3], 7) is True
        assert client.touch(keys[4], 60) is True
        value, token = client.gets(keys[5])
        assert client.cas(keys[5], value + 1, token) is True
        assert client.exists(keys[6]) is True
        assert client.delete(keys[7]) is True
        assert client.delete_many(keys[8:10]) == 2
        assert client.get_or_set(keys[10], lambda: 1, ttl=60) == 5
        found = [6, -2, 5, 7, 5, 6, 5, None, None, None, 5, 5]
        assert [client.get(key) for key in keys] == found
        client.set_nodes(client.nodes)  # without the old node
        assert [client.get(key) for key in keys[:-1]] == found[:-1]


@pytest.mark.parametrize("way", ["memcached to redis", "redis to memcached"])
def test_values_move_between_kinds_of_servers(make, way, memcached_servers, redis_servers):
    """All types of values keep what they are."""
    ends = urls_of("memcached", memcached_servers, ()), urls_of("redis", (), redis_servers)
    old, new = ends if way.startswith("memcached") else ends[::-1]
    client = make(old, timeout=PATIENT, secret="s" * 32)
    items = {"text": "é", "bytes": b"\x00\xff", "number": 7, "list": [1, 2.5, None], "": ""}
    items = {f"key {name}": value for name, value in items.items()}
    client.set_many(items, ttl=500)
    client.set_nodes(new, warm_for=600)
    assert client.get_many(items) == items
    client.set_nodes(client.nodes)
    assert client.get_many(items) == items
    assert client.incr("key number") == 8


def test_values_of_other_clients_are_read_on_their_way(make, memcached_servers, redis_servers):
    """From memcached to Redis a foreign text is copied; a compressed one is read, and left."""
    client = make(memcached_servers[0].url, timeout=PATIENT, read_compressed=True)
    memcached_servers[0].ask(b"set plain 16 0 4\r\ntext\r\n", b"STORED\r\n")
    packed = b"x\x9cK\xceL\x01\x00\x02Z\x01\x2b"
    memcached_servers[0].ask(b"set packed 8 0 %d\r\n%b\r\n" % (len(packed), packed), b"STORED\r\n")
    client.set_nodes(redis_servers[0].url, warm_for=600)
    assert client.get("plain") == "text"
    client.get("packed")
    assert client.counters().moving["copied"] == 1
    client.set_nodes(client.nodes)
    assert client.get("plain") == "text"


def test_values_of_pymemcache_nodes_are_read_and_not_copied(make, memcached_servers):
    """Its protocol does not tell for how long a value lives."""
    urls = urls_of("pymemcache", memcached_servers, ())
    client = make(urls, timeout=PATIENT)
    client.set_many(ITEMS)
    client.remove_node(client.nodes[0].name, warm_for=600)
    assert client.get_many(ITEMS) == ITEMS
    assert client.counters().moving["copied"] == 0
    client.delete_many(ITEMS)
    assert client.get_many(ITEMS) == {}


def test_cached_functions_keep_their_values(make, memcached_servers):
    """With tags by the arguments and by the result, fresh and stale: no call of a function is repeated."""
    urls = urls_of("memcached", memcached_servers, ())
    client = make(urls[:1], timeout=PATIENT)
    calls = []

    def load(number):
        calls.append(number)
        return number

    def read(number):
        tags = [f"t{number}", lambda result: [f"r{result}"]]
        return client.get_or_set(f"f{number}", lambda: load(number), ttl=60, stale=60, tags=tags)

    for number in range(20):
        read(number)
    client.set_nodes(urls[1:2], warm_for=600)
    assert [read(number) for number in range(20)] == list(range(20))
    assert calls == list(range(20))
    assert client.invalidate_tag("t3")
    assert client.invalidate_tag("r4")
    assert [read(number) for number in range(20)] == list(range(20))
    assert sorted(calls[20:]) == [3, 4]


def test_a_client_that_is_dropped_is_collected():
    """A warm-up does not keep it alive."""
    client = Client(MEMORY, timeout=TIMEOUT)
    client.set_nodes(["memory://x"], warm_for=600)
    dropped = weakref.ref(client)
    del client
    gc.collect()
    assert dropped() is None
