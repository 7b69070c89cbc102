"""Django's cache over many memcached and Redis nodes: `"BACKEND": "shardcache_django.ShardCache"`."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from shardcache import ConfigurationError
from shardcache.settings.releases import require

try:
    require("shardcache-django", "Django", "5.2")  # older releases call other methods
except ConfigurationError as error:
    raise ImproperlyConfigured(str(error)) from None

from shardcache_django.backend import ShardCache

__all__ = ["ShardCache"]
