"""Calls belong to the span in which they were made, background refreshes too."""

from __future__ import annotations

import logging
import time

import pytest
from shardcache_opentelemetry import OpenTelemetryObserver

from shardcache import Client, ConfigurationError
from shardcache.testing.waiting import eventually

STALE = {"ttl": 0.01, "stale": 60, "jitter": 0.0, "refresh": "background"}


def test_calls_are_children_of_the_current_span(make, telemetry):
    """All of an operation; without one they begin a trace."""
    client = make("memory://a")
    client.set("k", 1)
    (alone,) = telemetry.spans()
    assert alone.parent is None
    with telemetry.tracer.start_as_current_span("request") as request:
        client.get_or_set("k2", lambda: 1, ttl=60, lock=True)
    *calls, last = telemetry.spans()
    assert last.name == "request"
    assert len(calls) >= 2
    assert {call.parent.span_id for call in calls} == {request.get_span_context().span_id}


@pytest.mark.parametrize("options", [{}, {"lock": True}])
def test_a_background_refresh_belongs_to_the_call_that_started_it(make, telemetry, options):
    """Its calls, and what its function reports, in threads and in tasks."""
    client = make("memory://a")
    refreshed = []

    def load():
        with telemetry.tracer.start_as_current_span("load") as span:
            refreshed.append(span)
        return len(refreshed)

    client.get_or_set("k", load, **STALE, **options)
    telemetry.spans()
    time.sleep(0.05)  # longer than the ttl
    with telemetry.tracer.start_as_current_span("request") as request:
        assert client.get_or_set("k", load, **STALE, **options) == 1
    own = request.get_span_context()

    def finished():
        if hasattr(client, "loop"):  # asyncio: its tasks run while it does something
            client.exists("other")
        return len(refreshed) == 2 and client.get("k") == 2

    eventually(finished, within=20)
    of_request = [span for span in telemetry.spans() if span.context.trace_id == own.trace_id]
    names = [span.name for span in of_request if span.name != "request"]
    assert names.count("load") == 1
    later = names[names.index("load") :]
    assert len(later) >= 2, names  # the value was stored
    assert all(span.parent.span_id == own.span_id for span in of_request if span.parent)


def test_the_environment_turns_it_on(monkeypatch, caplog):
    """For every client; one with another observer is reported twice, and a warning says so."""
    for text, observed in (("0", 0), ("", 0), ("1", 1)):
        monkeypatch.setenv("SHARDCACHE_OPENTELEMETRY", text)
        with Client("memory://a") as client:
            observers = client._cluster.observers.observers
            assert sum(isinstance(each, OpenTelemetryObserver) for each in observers) == observed
    with caplog.at_level(logging.WARNING, "shardcache"):
        Client("memory://a", observers=[OpenTelemetryObserver()]).close()
    assert "two OpenTelemetry observers" in caplog.text
    monkeypatch.setenv("SHARDCACHE_OPENTELEMETRY", "on")
    with pytest.raises(ConfigurationError, match="SHARDCACHE_OPENTELEMETRY: must be yes"):
        Client("memory://a")


def test_without_an_sdk_nothing_happens(caplog):
    """The API alone is enough: no error, no warning."""
    with Client("memory://a", observers=[OpenTelemetryObserver()]) as client:
        assert client.set("k", 1)
        assert client.get("k") == 1
        assert client.observer_errors == 0
    assert caplog.messages == []
