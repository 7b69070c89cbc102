"""OpenTelemetry spans and metrics of shardcache's calls to nodes.

Pass `observers=[OpenTelemetryObserver()]` to a client, or set `SHARDCACHE_OPENTELEMETRY=1` for every
client of a process.
"""

from shardcache_opentelemetry.observer import OpenTelemetryObserver

__all__ = ["OpenTelemetryObserver"]
