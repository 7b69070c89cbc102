"""The application that adds the system check; the backend works without it."""

from __future__ import annotations

from django.apps import AppConfig


class ShardCacheConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The application `shardcache_django`."""

    name = "shardcache_django"

    def ready(self) -> None:
        """Register the check."""
        from shardcache_django import checks  # noqa: F401, PLC0415 - importing it registers it
