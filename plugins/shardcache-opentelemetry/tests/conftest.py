"""Providers of these tests, which keep what is reported, and servers."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from shardcache_opentelemetry import OpenTelemetryObserver

from shardcache.testing.clusters import running
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.servers import start_memcached, start_redis


class Telemetry:
    """An observer, with all that it reported."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = tracers.get_tracer("test")
        self.observer = OpenTelemetryObserver(
            tracer_provider=tracers, meter_provider=MeterProvider([self._reader])
        )

    def spans(self):
        """Return the spans that have ended, and drop them."""
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return spans

    def points(self):
        """Return the points of the one metric, with its name and unit."""
        (resource,) = self._reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        (metric,) = scope.metrics
        assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
        return metric.data.data_points


@pytest.fixture
def telemetry():
    """Return an observer with what it reported."""
    return Telemetry()


@pytest.fixture(params=MODES)
def make(request, telemetry):
    """Return a function that creates an observed client of each kind in turn."""
    clients = []

    def make(urls, **settings):
        clients.append(make_client(request.param, urls, observers=[telemetry.observer], **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def servers():
    """Yield a memcached and a Redis."""
    with running(start_memcached, start_redis) as servers:
        yield servers
