"""The metrics of one registry, which all observers of a process share."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Histogram

from shardcache import ConfigurationError
from shardcache_prometheus.calls import calls_of
from shardcache_prometheus.gauges import Gauges

RECOMPUTE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Everything that the observers of one registry export."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"shardcache_{name}", text, labels, registry=registry)

        self.buckets = buckets
        # First: when a registry is collected, it is to be read before its own metrics.
        self.gauges = Gauges(registry)
        self.calls = calls_of(registry, buckets, self.gauges.read_if_due)
        self.recomputes = count("recomputes", "Calls of cached functions.", "result")
        self.recompute_durations = Histogram(
            "shardcache_recompute_duration_seconds",
            "Calls of cached functions.",
            buckets=RECOMPUTE_BUCKETS,
            registry=registry,
        )
        self.stampedes_prevented = count(
            "stampedes_prevented", "Callers that got the value of another's recompute.", "how"
        )
        self.stale_served = count("stale_served", "Values that were served after their ttl.")
        self.shadow_comparisons = count(
            "shadow_comparisons", "Values that were compared with a shadow's.", "outcome"
        )
        self.ejections = count("ejections", "Ejections of a node, by each client.", "node")
        self.decode_failures = count(
            "decode_failures", "Stored values that could not be read.", "node"
        )
        self.locks_lost = count("locks_lost", "Locks that were lost before their release.")
        self.lock_provider_errors = count(
            "lock_provider_errors",
            "Errors that a lock provider must not raise, by its method.",
            "call",
        )


_known: WeakKeyDictionary[CollectorRegistry, Metrics] = WeakKeyDictionary()


def metrics_of(registry: CollectorRegistry, buckets: Sequence[float]) -> Metrics:
    """Return the metrics of a registry, which takes each name once; create them for the first observer.

    Raise `ConfigurationError` if an earlier observer of the same registry has other buckets.
    """
    metrics = _known.get(registry)
    if metrics is None:
        _known[registry] = metrics = Metrics(registry, buckets)
    if metrics.buckets != buckets:
        raise ConfigurationError(
            f"PrometheusObserver: buckets: another observer of this registry has {metrics.buckets};"
            " pass the same to each, or a registry of its own"
        )
    return metrics
