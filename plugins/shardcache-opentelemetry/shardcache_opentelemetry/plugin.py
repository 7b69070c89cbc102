"""The hook of this plugin; the entry point in `pyproject.toml` names this module."""

from __future__ import annotations

import os
from collections.abc import Iterable

from shardcache import ConfigurationError, Settings, hookimpl
from shardcache_opentelemetry.observer import OpenTelemetryObserver

VARIABLE = "SHARDCACHE_OPENTELEMETRY"
ON = ("1", "yes", "true")
OFF = ("", "0", "no", "false")


@hookimpl
def shardcache_observers(settings: Settings) -> Iterable[object]:  # noqa: ARG001 - the same for all
    """Observe every client of this process, if the environment asks for it.

    Not by being installed: an observer costs microseconds in each call, and a service that keeps spans
    may charge for each of them.
    """
    text = os.environ.get(VARIABLE, "").strip().lower()
    if text not in (*ON, *OFF):
        raise ConfigurationError(f"{VARIABLE}: must be yes, true, 1, no, false or 0")
    return [OpenTelemetryObserver()] if text in ON else []
