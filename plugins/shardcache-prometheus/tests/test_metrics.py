"""What clients of both kinds do, as it stands in a registry."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from shardcache_prometheus import PrometheusObserver

from shardcache import (
    CallFinished,
    Client,
    ConfigurationError,
    LockLost,
    LockProviderFailed,
    Node,
    ShadowCompared,
)
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually

OPERATIONS = "shardcache_operations_total"
CALLS = "shardcache_operation_duration_seconds_count"


@pytest.fixture
def registry():
    """Return a registry of the test's own."""
    return CollectorRegistry()


@pytest.fixture(params=MODES)
def make(request, registry):
    """Return a function that creates an observed client of each kind in turn."""
    clients = []

    def make(urls="memory://a", observer=None, **settings):
        observer = PrometheusObserver(registry=registry) if observer is None else observer
        clients.append(make_client(request.param, urls, observers=[observer], **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def value(registry, name, **labels):
    """Return a sample's value; `None` if there is no such sample."""
    return registry.get_sample_value(name, labels)


def test_each_key_that_is_read_is_a_hit_or_a_miss(make, registry):
    """A call over many keys is one call; a call that reads none is `ok`."""
    client = make()
    client.set("k", 1)
    client.get("k")
    client.get_many(["k", "l", "m"])
    assert value(registry, OPERATIONS, operation="set", result="ok", node="a") == 1
    assert value(registry, OPERATIONS, operation="set", result="hit", node="a") is None
    assert value(registry, OPERATIONS, operation="get", result="hit", node="a") == 1
    assert value(registry, OPERATIONS, operation="get", result="miss", node="a") is None
    assert value(registry, OPERATIONS, operation="get", result="ok", node="a") is None
    assert value(registry, OPERATIONS, operation="getmany", result="hit", node="a") == 1
    assert value(registry, OPERATIONS, operation="getmany", result="miss", node="a") == 2
    calls = [value(registry, CALLS, operation=each, node="a") for each in ("set", "getmany")]
    assert calls == [1, 1]


def test_a_node_that_dies_and_comes_back(make, registry, servers):
    """Its errors, what was refused, the ejection, and the circuit until it is restored."""
    server = servers[0]
    client = make(server.url)
    name = client.nodes[0].name
    client.set("k", 1)
    assert value(registry, "shardcache_circuit_open", node=name) == 0
    connections = {"node": name, "state": "idle"}
    assert value(registry, "shardcache_pool_connections", **connections) == 1
    server.kill()
    for _ in range(5):
        client.get("k")
    errors, refused = (
        value(registry, OPERATIONS, operation="get", result=result, node=name)
        for result in ("error", "refused")
    )
    assert errors >= 1
    assert errors + refused == 5
    assert value(registry, CALLS, operation="get", node=name) == errors
    assert value(registry, "shardcache_ejections_total", node=name) == 1
    assert value(registry, "shardcache_circuit_open", node=name) == 1
    assert value(registry, "shardcache_pool_connections", **connections) == 0
    server.restart()
    eventually(lambda: client.set("k", 1), within=20)
    assert value(registry, "shardcache_circuit_open", node=name) == 0


def test_cached_functions(make, registry):
    """Recomputes by result, how long they took, and old values that were served."""
    client = make()
    client.get_or_set("k", lambda: 1, ttl=0.01, stale=60, jitter=0.0, refresh="inline")
    client.get_or_set("l", lambda: 1, ttl=60, condition=lambda _: False)

    def fail():
        raise ValueError("the source is down")

    with pytest.raises(ValueError, match="the source is down"):
        client.get_or_set("m", fail, ttl=60)
    results = [
        value(registry, "shardcache_recomputes_total", result=result)
        for result in ("stored", "not_stored", "error")
    ]
    assert results == [1, 1, 1]
    assert value(registry, "shardcache_recompute_duration_seconds_count") == 3
    time.sleep(0.02)  # longer than the ttl
    client.get_or_set("k", lambda: 1, ttl=0.01, stale=60, jitter=0.0)
    assert value(registry, "shardcache_stale_served_total") == 1


def test_comparisons_with_a_shadow(registry):
    """By outcome."""
    observer, node = PrometheusObserver(registry=registry), Node("memory://a")
    for outcome in ("same", "differs", "same"):
        observer.shadow_compared(ShadowCompared(b"k", outcome, node, node))
    name = "shardcache_shadow_comparisons_total"
    assert value(registry, name, outcome="same") == 2
    assert value(registry, name, outcome="differs") == 1


def test_values_that_cannot_be_read(make, registry, servers):
    """Another client's, with another codec."""
    server = servers[1]
    make(server.url, codec="pickle", secret="0123456789abcdef").set("k", {1})
    client = make(server.url)
    assert client.get("k") is None
    name = client.nodes[0].name
    assert value(registry, "shardcache_decode_failures_total", node=name) == 1


def test_locks_that_are_lost(registry):
    """A lock whose node forgot it, and that another client took, cannot be extended."""
    with Client("memory://a", observers=[PrometheusObserver(registry=registry)]) as client:
        lease = client.lock("report", ttl=5).acquire()
        client.flush_all()
        client.lock("report").acquire()
        with pytest.raises(LockLost):
            lease.extend()
    assert value(registry, "shardcache_locks_lost_total") == 1


def test_what_a_lock_provider_raises(registry):
    """By its method: no caller may have seen it."""
    event = LockProviderFailed(b"report", "release", OSError())
    PrometheusObserver(registry=registry).lock_provider_failed(event)
    assert value(registry, "shardcache_lock_provider_errors_total", call="release") == 1


def test_callers_that_were_spared(registry):
    """A thread that joins another's recompute."""
    computing, finish = threading.Event(), threading.Event()

    def compute():
        computing.set()
        assert finish.wait(20)
        return 1

    with Client("memory://a", observers=[PrometheusObserver(registry=registry)]) as client:
        first = threading.Thread(target=client.get_or_set, args=("k", compute, 60))
        first.start()
        assert computing.wait(20)
        threading.Timer(0.2, finish.set).start()
        assert client.get_or_set("k", lambda: 2, 60) == 1
        first.join()
    assert value(registry, "shardcache_stampedes_prevented_total", how="joined") == 1


def test_no_call_is_lost_between_threads(registry):
    """Each of many threads counts all of its calls."""
    observer = PrometheusObserver(registry=registry)
    event = CallFinished("get", Node("memory://a"), 0.5, None, 1, 2)
    threads = [
        threading.Thread(target=lambda: [observer.call_finished(event) for _ in range(20_000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = {"operation": "get", "node": "a"}
    assert value(registry, OPERATIONS, result="hit", **labels) == 80_000
    assert value(registry, OPERATIONS, result="miss", **labels) == 160_000
    assert value(registry, CALLS, **labels) == 80_000
    name = "shardcache_operation_duration_seconds_"
    assert value(registry, f"{name}sum", **labels) == 40_000
    buckets = [value(registry, f"{name}bucket", le=le, **labels) for le in ("0.25", "0.5", "+Inf")]
    assert buckets == [0, 80_000, 80_000]


def test_clients_of_one_registry_count_together(make, registry):
    """Each with an observer of its own, and a view with its client's."""
    first, second = make(), make("memory://a,b")
    first.set("k", 1)
    first.view(namespace="v").set("k", 1)
    second.set_many({f"k{number}": number for number in range(20)})
    assert value(registry, OPERATIONS, operation="set", result="ok", node="a") == 2
    assert value(registry, OPERATIONS, operation="setmany", result="ok", node="a") == 1
    assert value(registry, OPERATIONS, operation="setmany", result="ok", node="b") == 1
    assert value(registry, "shardcache_circuit_open", node="b") == 0


def test_a_client_is_not_kept_alive(registry, servers):
    """Its nodes stay, with zero; a client that is closed counts no more either."""
    server = servers[0]
    client = Client(server.url, observers=[PrometheusObserver(registry=registry)])
    name = client.nodes[0].name
    client.set("k", 1)
    assert value(registry, "shardcache_pool_size", node=name) == 32
    client.close()
    assert value(registry, "shardcache_pool_size", node=name) == 0
    client = Client(server.url, observers=[PrometheusObserver(registry=registry)])
    client.set("k", 1)
    assert value(registry, "shardcache_pool_size", node=name) == 32
    del client
    gc.collect()
    assert value(registry, "shardcache_pool_size", node=name) == 0


def test_no_label_holds_a_key(make, registry):
    """Whatever is called."""
    client = make()
    client.get_or_set("secret", lambda: "secret", ttl=60, lock=True, tags=["secret"])
    client.set_many({"secret": 1, "secret:2": 2})
    client.get_many(["secret", "secret:3"])
    client.incr("secret:n", initial=1)
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    assert len(samples) > 50
    assert not any("secret" in text for each in samples for text in each.labels.values())
    assert {label for each in samples for label in each.labels} == {
        "how",
        "le",
        "node",
        "operation",
        "result",
    } - {"how"}


@pytest.mark.parametrize(
    "buckets",
    [
        [],
        [0.1, 0.1],
        [2, 1],
        [0.0, 1.0],
        ["1"],
        [-1.0],
        [float("nan")],
        [1, math.inf],
        5,
        None,
        "1",
    ],
)
def test_buckets_rise(registry, buckets):
    """Bounds that do not are refused where they are written, and what is no list of bounds."""
    with pytest.raises(ConfigurationError, match="buckets: must be seconds that rise"):
        PrometheusObserver(registry=registry, buckets=buckets)


@pytest.mark.parametrize("registry", [5, None, "default", CollectorRegistry])
def test_a_registry_is_one_of_prometheus(registry):
    """Anything else is refused with its type."""
    kind = type(registry).__name__
    with pytest.raises(
        ConfigurationError, match=f"registry: must be a CollectorRegistry .* {kind}$"
    ):
        PrometheusObserver(registry=registry)


def test_observers_of_a_registry_have_the_same_buckets(registry):
    """The second one would not get what it asks for."""
    PrometheusObserver(registry=registry, buckets=[0.1, 1])
    PrometheusObserver(registry=registry, buckets=(0.1, 1))
    with pytest.raises(ConfigurationError, match=r"another observer .* has \(0\.1, 1\)"):
        PrometheusObserver(registry=registry)


def test_the_environment_turns_it_on(monkeypatch):
    """For every client, in the registry of the process."""
    labels = {"operation": "set", "result": "ok", "node": "by the environment"}
    for text, counted in (("0", None), ("", None), ("1", 1)):
        monkeypatch.setenv("SHARDCACHE_PROMETHEUS", text)
        with Client("memory://by%20the%20environment") as client:
            labels["node"] = client.nodes[0].name
            client.set("k", 1)
        assert REGISTRY.get_sample_value(OPERATIONS, labels) == counted
    monkeypatch.setenv("SHARDCACHE_PROMETHEUS", "on")
    with pytest.raises(ConfigurationError, match="SHARDCACHE_PROMETHEUS: must be yes"):
        Client("memory://a")


def test_two_observers_of_a_client_are_a_warning(monkeypatch, caplog):
    """Each call would be counted twice, and nobody would see why."""
    monkeypatch.setenv("SHARDCACHE_PROMETHEUS", "1")
    with caplog.at_level(logging.WARNING, "shardcache"), Client("memory://a"):
        assert caplog.messages == []
        with Client("memory://a", observers=[PrometheusObserver()]):
            (message,) = caplog.messages
    assert "two Prometheus observers" in message
