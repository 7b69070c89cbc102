"""An observer that counts the events of clients as Prometheus metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import isfinite
from operator import lt

from prometheus_client import REGISTRY, CollectorRegistry

from shardcache import (
    CallFinished,
    ClientCreated,
    ComputeFinished,
    ConfigurationError,
    DecodeFailed,
    LeaseLost,
    LockProviderFailed,
    NodeEjected,
    NodeRestored,
    Observer,
    ShadowCompared,
    StaleServed,
    StampedePrevented,
)
from shardcache_prometheus.metrics import metrics_of

# Seconds, up to a timeout of half a second and one above it.
BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

log = logging.getLogger("shardcache")


class PrometheusObserver(Observer):
    """Counts what clients do in a registry of prometheus_client; no label holds a key.

    One may serve any number of clients, and several may share a registry: they count together.
    `buckets` are the bounds in seconds of `shardcache_operation_duration_seconds`, which rise.
    Raise `ConfigurationError` for other buckets, for others than an earlier observer of the registry
    has, and for what is no registry.
    """

    calls_client = False

    def __init__(
        self, *, registry: CollectorRegistry = REGISTRY, buckets: Iterable[float] = BUCKETS
    ) -> None:
        if not isinstance(registry, CollectorRegistry):
            raise ConfigurationError(
                "PrometheusObserver: registry: must be a CollectorRegistry of prometheus_client, not"
                f" {type(registry).__name__}"
            )
        metrics = metrics_of(registry, _check(buckets))
        self._record = metrics.calls.record
        self._gauges = metrics.gauges
        self._metrics = metrics

    def client_created(self, event: ClientCreated) -> None:
        """Read the client's circuits and connections from now on."""
        if not self._gauges.add(event.client):
            log.warning(
                "%r has two Prometheus observers, so its calls are counted twice:"
                " unset SHARDCACHE_PROMETHEUS, or pass no PrometheusObserver",
                event.client,
            )

    def call_finished(self, event: CallFinished) -> None:
        """Count a call to a node, or each key that it read."""
        self._record(event)

    def compute_finished(self, event: ComputeFinished) -> None:
        """Count a recompute, and measure it."""
        result = "error" if event.error else "stored" if event.stored else "not_stored"
        self._metrics.recomputes.labels(result).inc()
        self._metrics.recompute_durations.observe(event.seconds)

    def stampede_prevented(self, event: StampedePrevented) -> None:
        """Count a caller that was spared a recompute."""
        self._metrics.stampedes_prevented.labels(event.how).inc()

    def stale_served(self, _: StaleServed) -> None:
        """Count an old value."""
        self._metrics.stale_served.inc()

    def shadow_compared(self, event: ShadowCompared) -> None:
        """Count a value that was compared with a shadow's."""
        self._metrics.shadow_comparisons.labels(event.outcome).inc()

    def decode_failed(self, event: DecodeFailed) -> None:
        """Count a value that cannot be read."""
        self._metrics.decode_failures.labels(event.node.name).inc()

    def lease_lost(self, _: LeaseLost) -> None:
        """Count a lost lock."""
        self._metrics.locks_lost.inc()

    def lock_provider_failed(self, event: LockProviderFailed) -> None:
        """Count an error of a lock provider that no caller may have seen."""
        self._metrics.lock_provider_errors.labels(event.call).inc()

    def node_ejected(self, event: NodeEjected) -> None:
        """Count an ejection, and show its circuit."""
        self._metrics.ejections.labels(event.node.name).inc()
        self._gauges.read()

    def node_restored(self, _: NodeRestored) -> None:
        """Show the circuit of a node that is asked again."""
        self._gauges.read()


def _check(buckets: Iterable[float]) -> tuple[float, ...]:
    """Return the bounds of buckets; raise `ConfigurationError` unless they rise from above zero."""
    bounds = tuple(buckets) if isinstance(buckets, Iterable) else ()
    numbers = all(isinstance(bound, (int, float)) and isfinite(bound) for bound in bounds)
    if not (bounds and numbers and all(map(lt, (0.0, *bounds), bounds))):
        raise ConfigurationError(
            "PrometheusObserver: buckets: must be seconds that rise, above zero, as in [0.01, 0.1, 1]"
        )
    return bounds
