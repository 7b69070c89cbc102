"""The metrics of one registry, which all observers of a process share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Histogram

from shardcache import ConfigurationError
from shardcache_prometheus.gauges import Gauges

MetricT = TypeVar("MetricT", bound=Counter | Histogram)

RECOMPUTE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Children(dict[tuple[str, ...], MetricT], Generic[MetricT]):
    """The children of a metric by the values of their labels, each bound once.

    `labels()` of prometheus_client costs about as much as all the rest of an event.
    """

    def __init__(self, bind: Callable[..., MetricT]) -> None:
        super().__init__()
        self._bind = bind

    def __missing__(self, labels: tuple[str, ...]) -> MetricT:
        self[labels] = child = self._bind(*labels)
        return child


class Metrics:
    """Everything that the observers of one registry export."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"shardcache_{name}", text, labels, registry=registry)

        def measure(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            full_name = f"shardcache_{name}_duration_seconds"
            return Histogram(full_name, text, labels, buckets=buckets, registry=registry)

        self.buckets = buckets
        # First: when a registry is collected, it is to be read before its own metrics.
        self.gauges = Gauges(registry)
        operations = count(
            "operations",
            "Keys read from a node (hit, miss), and its other calls (ok, error; refused: not sent,"
            " because the node is ejected).",
            "operation",
            "result",
            "node",
        )
        self.operations = Children(operations.labels)
        durations = measure(
            "operation",
            "Calls that were sent to a node, from the call to its reply or error.",
            buckets,
            "operation",
            "node",
        )
        self.durations = Children(durations.labels)
        self.recomputes = count("recomputes", "Calls of cached functions.", "result")
        self.recompute_durations = measure(
            "recompute", "Calls of cached functions.", RECOMPUTE_BUCKETS
        )
        self.stampedes_prevented = count(
            "stampedes_prevented", "Callers that got the value of another's recompute.", "how"
        )
        self.stale_served = count("stale_served", "Values that were served after their ttl.")
        self.ejections = count("ejections", "Ejections of a node, by each client.", "node")
        self.decode_failures = count(
            "decode_failures", "Stored values that could not be read.", "node"
        )
        self.locks_lost = count("locks_lost", "Locks that were lost before their release.")


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
