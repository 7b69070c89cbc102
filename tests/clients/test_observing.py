"""Which events observers get, and that they break nothing."""

from __future__ import annotations

import inspect

import pytest

from operations.harness import OBSERVED, EventLog
from shardcache import (
    CallFinished,
    Client,
    ClientClosedError,
    DecodeError,
    DecodeFailed,
    NodeFailed,
    NodeUnavailableError,
    Observer,
    OperationFinished,
    PartialFailureError,
    TopologyChanged,
)
from shardcache.core.commands import Set
from shardcache.operations.cluster import cluster as cluster_module
from shardcache.testing.driving import make_client


@pytest.fixture(params=["memory", "memcached", "redis"])
def urls(request):
    """Return the URLs of three nodes, of each kind in turn."""
    if request.param == "memory":
        return [f"memory://{name}" for name in "abc"]
    return [server.url for server in request.getfixturevalue(f"{request.param}_servers")]


def test_calls_and_changes_are_reported(mode):
    """Each node asked, and each change of nodes, is an event."""
    log = EventLog(*OBSERVED)
    client = make_client(mode, ["memory://a"], observers=[log])
    client.set("k", 1)
    client.get("k")
    client.add_node("memory://b")
    calls = [event.command for event in log.of(CallFinished)]
    assert calls == ["set", "get"]
    assert all(e.seconds >= 0 and e.error is None for e in log.events[:2])
    (changed,) = log.of(TopologyChanged)
    assert [node.name for node in changed.change.added] == ["b"]


def test_swallowed_errors_are_reported_and_counted(mode):
    """A miss that was an error is an event and a count."""
    log = EventLog(*OBSERVED)
    client = make_client(mode, "memcached://127.0.0.1:1", observers=[log], timeout=5)
    assert client.get("k") is None
    (failed,) = log.of(NodeFailed)
    assert isinstance(failed.error, NodeUnavailableError)
    assert failed.swallowed
    client.close()


def test_garbage_is_a_counted_miss(mode):
    """Bytes that no codec can read are a miss, counted and told, and never shown."""
    log = EventLog(*OBSERVED)
    client = make_client(mode, "memory://a", observers=[log])
    inner = getattr(client, "twin", client)
    member = next(iter(inner._cluster.members.values()))
    store = member.backend._execute
    store(Set(b"k", (32 << 16, b"\xc1 top secret")))
    assert client.get("k", "default") == "default"
    assert client.get_many(["k"]) == {}
    told = log.of(DecodeFailed)
    assert len(told) == 2
    assert "secret" not in repr(told)
    assert member.counters()["decode_failures"] == 2


def test_an_observer_that_raises_breaks_nothing(mode):
    """What an observer raises is counted, and the call goes on."""

    class Broken:
        def call_finished(self, event):
            raise RuntimeError(event)

    client = make_client(mode, "memory://a", observers=[Broken()])
    assert client.set("k", 1)
    assert client.get("k") == 1
    assert client.observer_errors == 2


def test_an_unreadable_value_takes_no_other_with_it(memcached_servers, mode):
    """Under `on_error="raise"` the values that were read come with the error."""
    url = memcached_servers[0].url
    client = make_client(mode, url, on_error="raise", timeout=5.0)
    with Client(url, codec="json", timeout=5.0) as other:
        other.set("odd", {"by": "another codec"})
    client.set("even", {"ours": 1})
    with pytest.raises(PartialFailureError, match="cannot be read") as raised:
        client.get_many(["odd", "even"])
    assert raised.value.found == {"even": {"ours": 1}}
    assert [type(error) for error in raised.value.failed.values()] == [DecodeError]
    client.close()


class HitLog(Observer):
    """Keeps the hits and misses of each call that read something."""

    def __init__(self):
        self.counts = []

    def call_finished(self, event):
        """Keep the counts."""
        if event.hits or event.misses:
            self.counts.append((event.command, event.hits, event.misses))


def test_events_of_reads_have_hits_and_misses(urls, mode):
    """On every kind of node; a write has neither."""
    log = HitLog()
    client = make_client(mode, urls[:1], observers=[log], timeout=5.0)
    client.get("k")
    client.set("k", None)
    client.get("k")
    client.gets("k")
    client.get_many(["k", "l", "m"])
    client.exists("k")
    client.exists("l")
    client.delete("k")
    client.incr("n", initial=1)
    assert log.counts == [
        ("get", 0, 1),
        ("get", 1, 0),
        ("gets", 1, 0),
        ("getmany", 1, 2),
        ("peek", 1, 0),
        ("peek", 0, 1),
    ]
    assert client.observer_errors == 0
    client.close()


def test_a_failed_call_has_neither_hits_nor_misses(mode):
    """Its error says what it was."""
    log = HitLog()
    client = make_client(mode, "memcached://127.0.0.1:1", observers=[log], timeout=5.0)
    assert client.get("k") is None
    assert client.get_many(["k", "l"]) == {}
    assert log.counts == []
    client.close()


def test_a_cached_function_counts_a_miss_and_a_hit(mode):
    """Its stubs, locks and tags are not counted."""
    log = HitLog()
    client = make_client(mode, ["memory://a", "memory://b"], observers=[log])

    def compute():
        return 1

    async def compute_async():
        return 1

    decorate = client.cached(ttl=60, lock=True, tags=["t"], stale=10, namespace="n")
    function = decorate(compute if mode == "blocking" else compute_async)
    for _ in range(2):
        assert result_of(client, function()) == 1
    assert [counts[1:] for counts in log.counts] == [(0, 1), (1, 0)]
    client.close()


def test_counters_are_those_of_stats_and_ask_no_node(urls, mode):
    """They are the client's own: nothing is sent, and a closed client has none."""
    log = EventLog(*OBSERVED)
    client = make_client(mode, urls, observers=[log], timeout=5.0)
    client.set_many({f"k{number}": number for number in range(30)})
    client.get_many([f"k{number}" for number in range(40)])
    client.get_or_set("computed", lambda: 1, ttl=60)
    told = len(log.events)
    counted = client.counters()
    assert len(log.events) == told
    assert sum(each["hits"] for each in counted.values()) == 30
    assert sum(each["misses"] for each in counted.values()) == 10
    assert counted.protection["recomputes"] == 1
    assert set(counted.circuits.values()) == {"closed"}
    stats = client.stats()
    assert {name: each.client for name, each in stats.items()} == counted
    assert stats.protection == counted.protection
    assert len(log.events) == told + len(urls)
    client.close()
    with pytest.raises(ClientClosedError):
        client.counters()


def test_counters_include_ejected_nodes_and_lock_nodes(mode):
    """Lock nodes have a name of their own."""
    client = make_client(mode, "memcached://127.0.0.1:1", lock_nodes="memory://a", timeout=5.0)
    client.get("k")
    client.get("k")
    counted = client.counters()
    assert set(counted) == {"127.0.0.1:1", "lock a"}
    assert counted["127.0.0.1:1"]["swallowed_errors"] == 2
    assert counted["127.0.0.1:1"]["ejections"] == 1
    assert counted.circuits["lock a"] == "closed"
    assert counted.circuits["127.0.0.1:1"] in {"open", "probing"}
    client.close()


class KeyLog(Observer):
    """Keeps the events that tell of keys."""

    def __init__(self):
        self.events = []

    def keys_accessed(self, event):
        """Keep an event."""
        self.events.append(event)

    def take(self):
        """Return the events since the last time: operation, size by key, and ttl."""
        events, self.events = self.events, []
        return [
            (event.operation, dict(zip(event.keys, event.sizes, strict=True)), event.ttl)
            for event in events
        ]


def test_the_keys_of_single_calls_are_reported(urls, mode):
    """With the bytes of each value, over every kind of node, to both clients."""
    log = KeyLog()
    client = make_client(mode, urls, observers=[log], timeout=5.0, default_ttl=300)
    client.get("k")
    client.set("k", b"12345", ttl=60)
    client.get("k")
    client.add("k", "12", ttl=None)
    client.replace("k", "123")
    _, token = client.gets("k")
    client.cas("k", b"1234", token)
    client.touch("k", 30)
    client.delete("k")
    client.incr("n", 2, initial=10)
    client.decr("n")
    assert log.take() == [
        ("get", {b"k": None}, None),
        ("set", {b"k": 5}, 60.0),
        ("get", {b"k": 5}, None),
        ("add", {b"k": 2}, None),
        ("replace", {b"k": 3}, 300.0),
        ("get", {b"k": 3}, None),
        ("cas", {b"k": 4}, 300.0),
        ("touch", {b"k": None}, 30.0),
        ("delete", {b"k": None}, None),
        ("incr", {b"n": None}, None),
        ("add", {b"n": 2}, 300.0),
        ("incr", {b"n": None}, None),
    ]
    assert client.observer_errors == 0
    client.close()


def test_the_keys_of_batches_are_reported_by_node(urls, mode):
    """Each node tells of its own keys, by the names they have there."""
    log = KeyLog()
    client = make_client(mode, urls, observers=[log], timeout=5.0, namespace="shop")
    keys = [f"k{number}" for number in range(30)]
    client.set_many({key: bytes(number) for number, key in enumerate(keys)}, ttl=60)
    stored = {b"4:shop:k%d" % number: number for number in range(30)}
    for event in log.events:
        owners = {client.node_for(key.removeprefix(b"4:shop:")).name for key in event.keys}
        assert owners == {event.node.name}
    assert merged(log.take()) == ("set_many", stored, {60.0})
    client.get_many([*keys, "missing"])
    assert merged(log.take()) == ("get_many", {**stored, b"4:shop:missing": None}, {None})
    client.delete_many(keys)
    assert merged(log.take()) == ("delete_many", dict.fromkeys(stored), {None})
    assert client.observer_errors == 0
    client.close()


def merged(told):
    """Return the events of one call over many nodes as one."""
    (operation,) = {each[0] for each in told}
    assert len(told) > 1
    return (
        operation,
        {key: size for _, sizes, _ in told for key, size in sizes.items()},
        {ttl for _, _, ttl in told},
    )


def test_a_cached_function_reports_its_own_key_alone(urls, mode):
    """Its locks, tags, generation and stub are not reported."""
    log = KeyLog()
    client = make_client(mode, urls, observers=[log], timeout=5.0)

    def compute():
        return b"12345"

    async def compute_async():
        return b"12345"

    decorate = client.cached(ttl=60, lock=True, tags=["t"], stale=10, key="k", namespace="")
    function = decorate(compute if mode == "blocking" else compute_async)
    for _ in range(2):
        assert result_of(client, function()) == b"12345"
    lease = result_of(client, client.lock("report").acquire())
    assert result_of(client, lease.release()) is True
    assert result_of(client, function.invalidate_all()) is True
    assert result_of(client, function.invalidate_tag("t")) is True
    (name,) = {key for event in log.events for key in event.keys}
    told = [(operation, sizes[name]) for operation, sizes, _ in log.take()]
    size = told[-1][1]
    assert size > 5  # an age is stored around the value
    assert told == [("get", None), ("cas", size), ("get", size)]
    assert client.observer_errors == 0
    client.close()


def result_of(client, call):
    """Return the result of a call, awaited on the loop of its client if it has to be."""
    return client.loop.run_until_complete(call) if inspect.isawaitable(call) else call


def test_a_node_that_did_not_answer_reports_no_key(mode):
    """An error is told as a call, not as an access."""
    log = KeyLog()
    client = make_client(mode, "memcached://127.0.0.1:1", observers=[log], timeout=5)
    client.get("k")
    client.set_many({"k": 1})
    assert log.take() == []
    client.close()


def test_without_a_listener_no_key_is_looked_at(mode, monkeypatch):
    """Observers of other kinds cost no work per key."""
    looked = []
    monkeypatch.setattr(cluster_module, "keys_accessed", lambda *args: looked.append(args))
    log = EventLog(*OBSERVED)
    client = make_client(mode, ["memory://a"], observers=[log])
    client.set("k", 1)
    client.get_many(["k"])
    assert [type(event) for event in log.events] == [CallFinished, OperationFinished] * 2
    assert looked == []
    listening = make_client(mode, ["memory://a"], observers=[log, KeyLog()])
    listening.get("k")
    assert len(looked) == 1
