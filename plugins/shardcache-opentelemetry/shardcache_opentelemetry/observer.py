"""An observer that turns each call to a node into a span and a measurement."""

from __future__ import annotations

import logging
import time
from weakref import WeakSet

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, get_tracer

from shardcache import CallFinished, ClientCreated, ConfigurationError, Node, Observer
from shardcache_opentelemetry.conventions import BATCHES, SCHEMA, Attributes, Description, describe

NAME = "shardcache"
# Seconds; what the conventions advise.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
NANOSECONDS = 1_000_000_000

log = logging.getLogger("shardcache")

_observed: WeakSet[object] = WeakSet()


class OpenTelemetryObserver(Observer):
    """Reports each call to a node as a span of kind CLIENT, and in `db.client.operation.duration`.

    A span is a child of the span that was current when its call was made; a background refresh
    belongs to the call that started it. Calls that are not sent, because their node is ejected, are
    not reported. No key, value or text of an error is. One observer may serve any number of clients.
    The providers are the global ones unless they are given. Raise `ConfigurationError` for what is no
    provider.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        _check("tracer_provider", tracer_provider, TracerProvider)
        _check("meter_provider", meter_provider, MeterProvider)
        self._tracer = get_tracer(NAME, None, tracer_provider, SCHEMA)
        self._durations = get_meter(NAME, "", meter_provider, SCHEMA).create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._descriptions: dict[tuple[str, str, bool], Description] = {}

    def client_created(self, event: ClientCreated) -> None:
        """Warn of a client whose calls are reported twice."""
        if event.client in _observed:
            log.warning(
                "%r has two OpenTelemetry observers, so its calls are reported twice:"
                " unset SHARDCACHE_OPENTELEMETRY, or pass no OpenTelemetryObserver",
                event.client,
            )
        _observed.add(event.client)

    def call_finished(self, event: CallFinished) -> None:
        """Report a call."""
        command, node, seconds, error, hits, misses, keys, started = event
        if error is not None and not seconds:  # it was not sent
            return
        span_name, attributes, metric_attributes = self._describe(node, command, batch=keys > 1)
        details: Attributes = {}
        if hits or misses:
            details = {"shardcache.hits": hits, "shardcache.misses": misses}
        elif keys > 1 and command in BATCHES:
            details = {"db.operation.batch.size": keys}
        if error is not None:
            details["error.type"] = error_type = type(error).__qualname__
            metric_attributes = {**metric_attributes, "error.type": error_type}
        # The call may have ended before it is reported: with the last of the nodes that it asked.
        ago = int((time.monotonic() - started) * NANOSECONDS)
        began = time.time_ns() - ago
        span = self._tracer.start_span(
            span_name,
            kind=SpanKind.CLIENT,
            attributes={**attributes, **details},
            start_time=began,
        )
        if error is not None:
            span.set_status(StatusCode.ERROR)
        span.end(began + int(seconds * NANOSECONDS))
        self._durations.record(seconds, metric_attributes)

    def _describe(self, node: Node, command: str, *, batch: bool) -> Description:
        key = command, node.url, batch
        description = self._descriptions.get(key)
        if description is None:
            self._descriptions[key] = description = describe(node, command, batch=batch)
        return description


def _check(name: str, provider: object, kind: type) -> None:
    """Raise `ConfigurationError` for a provider that is none, and not left out."""
    if provider is not None and not isinstance(provider, kind):
        raise ConfigurationError(
            f"OpenTelemetryObserver: {name}: must be a {kind.__name__} of OpenTelemetry, not"
            f" {type(provider).__name__}"
        )
