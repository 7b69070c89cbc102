"""Spans and measurements as the conventions for databases ask for them."""

from __future__ import annotations

import time

import pytest
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
from shardcache_opentelemetry import OpenTelemetryObserver
from shardcache_opentelemetry.conventions import describe

from shardcache import ConfigurationError, Node

# The names by their own package, so that a slip of the pen is found.
SYSTEM = db_attributes.DB_SYSTEM_NAME
OPERATION = db_attributes.DB_OPERATION_NAME
SIZE = db_attributes.DB_OPERATION_BATCH_SIZE
DATABASE = db_attributes.DB_NAMESPACE
ADDRESS = server_attributes.SERVER_ADDRESS
PORT = server_attributes.SERVER_PORT
ERROR = error_attributes.ERROR_TYPE


@pytest.mark.parametrize("name", ["tracer_provider", "meter_provider"])
@pytest.mark.parametrize("provider", [5, "default", TracerProvider])
def test_a_provider_is_one_of_opentelemetry(name, provider):
    """Anything else is refused with its type; one that is left out is the global one."""
    kind = type(provider).__name__
    with pytest.raises(ConfigurationError, match=f"{name}: must be a .*Provider .* not {kind}$"):
        OpenTelemetryObserver(**{name: provider})
    OpenTelemetryObserver(**{name: None})


@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_call_is_a_span_and_a_measurement(make, telemetry, servers, kind):
    """With the same attributes, but for what is new in each call."""
    server = servers[kind == "redis"]
    client = make(server.url)
    before = time.time_ns()
    client.set("k", 1)
    client.get("k")
    first, second = telemetry.spans()
    common = {SYSTEM: kind, ADDRESS: server.host, PORT: server.port}
    if kind == "redis":
        common[DATABASE] = "0"
    name = client.nodes[0].name
    assert (first.name, first.kind) == (f"set {name}", SpanKind.CLIENT)
    assert dict(first.attributes) == {**common, OPERATION: "set", "shardcache.node": name}
    assert dict(second.attributes) == {
        **common,
        OPERATION: "get",
        "shardcache.node": name,
        "shardcache.hits": 1,
        "shardcache.misses": 0,
    }
    assert before <= first.start_time < first.end_time <= second.start_time
    assert second.end_time <= time.time_ns()
    assert first.status.status_code is StatusCode.UNSET
    points = {point.attributes[OPERATION]: point for point in telemetry.points()}
    assert {each: dict(points[each].attributes) for each in points} == {
        each: {**common, OPERATION: each} for each in ("set", "get")
    }
    assert points["get"].count == 1
    assert points["get"].sum == pytest.approx((second.end_time - second.start_time) / 1e9, abs=1e-8)
    assert list(points["get"].explicit_bounds) == [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]


def test_a_failed_call_has_its_type(make, telemetry):
    """No text of the error, which may quote a key; nothing is reported of calls that are not sent."""
    client = make("memcached://127.0.0.1:1")
    for _ in range(5):
        client.get("secret")
    assert client.ejected
    (span,) = telemetry.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.attributes[ERROR] == "NodeUnavailableError"
    assert span.events == ()
    (point,) = telemetry.points()
    assert (point.count, point.attributes[ERROR]) == (1, "NodeUnavailableError")


def test_batches_have_their_size(make, telemetry):
    """Two sets or deletes or more; a get of many keys is one operation, as `MGET` is."""
    client = make("memory://a")
    client.set_many({"k": 1, "l": 2})
    client.set_many({"k": 1})
    client.get_many(["k", "l", "m"])
    client.delete_many(["k", "l", "m"])
    told = [
        (
            span.attributes[OPERATION],
            span.attributes.get(SIZE),
            span.attributes.get("shardcache.hits"),
        )
        for span in telemetry.spans()
    ]
    assert told == [
        ("BATCH set", 2, None),
        ("set", None, None),
        ("getmany", None, 2),
        ("BATCH delete", 3, None),
    ]
    assert all(SIZE not in point.attributes for point in telemetry.points())


def test_a_call_to_many_nodes_has_a_span_for_each(make, telemetry, servers):
    """All begin together, and each ends when its node has answered, not the slowest."""
    client = make([server.url for server in servers], timeout=1)
    keys = [f"k{number}" for number in range(40)]
    client.set_many(dict.fromkeys(keys, 1))
    telemetry.spans()
    servers[0].pause()
    try:
        client.get_many(keys)
    finally:
        servers[0].resume()
    spans = {span.attributes[SYSTEM]: span for span in telemetry.spans()}
    assert spans["memcached"].attributes[ERROR] == "NodeTimeoutError"
    starts = [span.start_time for span in spans.values()]
    assert max(starts) - min(starts) < 0.1e9
    assert spans["redis"].end_time < spans["memcached"].end_time - 0.5e9


def test_nothing_that_is_reported_holds_a_key_or_a_value(make, telemetry):
    """Whatever is called."""
    client = make("memory://a", namespace="secret:namespace")
    client.get_or_set("secret", lambda: "secret", ttl=60, lock=True, tags=["secret"])
    client.set_many({"secret": "secret", "secret:2": 2})
    client.get_many(["secret", "secret:3"])
    client.incr("secret:n", initial=1)
    spans, points = telemetry.spans(), telemetry.points()
    assert len(spans) > 8
    reported = [span.to_json() for span in spans] + [str(point.attributes) for point in points]
    assert not any("secret" in text for text in reported)


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("memcached://10.0.0.1", {SYSTEM: "memcached", ADDRESS: "10.0.0.1", PORT: 11211}),
        ("memcacheds://h:7", {SYSTEM: "memcached", ADDRESS: "h", PORT: 7}),
        ("pymemcache://h", {SYSTEM: "memcached", ADDRESS: "h", PORT: 11211}),
        ("memcached+unix:///run/m.sock", {SYSTEM: "memcached", ADDRESS: "/run/m.sock"}),
        ("redis://u:hunter2@h", {SYSTEM: "redis", DATABASE: "0", ADDRESS: "h", PORT: 6379}),
        ("rediss://h/3", {SYSTEM: "redis", DATABASE: "3", ADDRESS: "h", PORT: 6379}),
        ("redis://h?db=4", {SYSTEM: "redis", DATABASE: "4", ADDRESS: "h", PORT: 6379}),
        ("redis+unix:///r.sock?db=2", {SYSTEM: "redis", DATABASE: "2", ADDRESS: "/r.sock"}),
        ("redis+unix:///r.sock", {SYSTEM: "redis", DATABASE: "0", ADDRESS: "/r.sock"}),
        ("redis://[::1]", {SYSTEM: "redis", DATABASE: "0", ADDRESS: "::1", PORT: 6379}),
        ("memory://a", {SYSTEM: "memory", ADDRESS: "a"}),
        ("sqlite://a?file=/x", {SYSTEM: "sqlite", ADDRESS: "a"}),
    ],
)
def test_a_node_in_the_words_of_the_conventions(url, attributes):
    """Its kind of server and its address; never the login of its URL."""
    description = describe(Node(url, "n1"), "get", batch=False)
    assert description.metric_attributes == {**attributes, OPERATION: "get"}
    assert description.attributes["shardcache.node"] == "n1"
    assert "hunter2" not in str(description)
