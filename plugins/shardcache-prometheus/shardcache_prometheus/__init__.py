"""Prometheus metrics of shardcache's clients.

Pass `observers=[PrometheusObserver()]` to a client, or set `SHARDCACHE_PROMETHEUS=1` for every client
of a process. `dashboard.json` in this package is a dashboard for Grafana.
"""

from shardcache_prometheus.observer import BUCKETS, PrometheusObserver

__all__ = ["BUCKETS", "PrometheusObserver"]
