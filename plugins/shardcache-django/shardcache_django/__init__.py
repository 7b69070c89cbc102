"""Django's cache over many memcached and Redis nodes: `"BACKEND": "shardcache_django.ShardCache"`."""

from __future__ import annotations

import django
from django.core.exceptions import ImproperlyConfigured

OLDEST = (5, 2)  # older releases call other methods, and get no fixes any more

if django.VERSION < OLDEST:
    raise ImproperlyConfigured(
        f"shardcache-django needs Django 5.2 or newer, and this is {django.get_version()}: upgrade"
        " Django, or keep the cache backend that you have"
    )

from shardcache_django.backend import ShardCache  # noqa: E402 - only for a Django that has the parts

__all__ = ["ShardCache"]
