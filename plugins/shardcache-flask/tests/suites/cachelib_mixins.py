"""Run below cachelib's own tests: its mixins for all caches, over our nodes (`SUITE_URLS`)."""

from __future__ import annotations

import importlib.util
import os

import pytest
from clear import ClearTests
from common import CommonTests
from has import HasTests
from shardcache_flask import ShardCache

MIXINS = [CommonTests, ClearTests, HasTests]
for module, name in [  # which older releases do not have
    ("delete_many_with_prefix", "DeleteManyWithPrefixTests"),
    ("serializer", "SerializerTests"),
]:
    if importlib.util.find_spec(module) is not None:
        MIXINS.append(getattr(importlib.import_module(module), name))


@pytest.fixture(autouse=True, params=["", "test-key-prefix:"], ids=["bare", "prefix"])
def key_prefix(request):
    """Return each prefix in turn."""
    return request.param


@pytest.fixture(autouse=True, params=[None, "a secret"], ids=["msgpack", "pickle"])
def cache_factory(request, key_prefix):
    """Make caches for the mixins, with and without a secret, and close them at the end."""
    caches = []

    def make(_, **options):
        options.setdefault("key_prefix", key_prefix)
        cache = ShardCache(os.environ["SUITE_URLS"].split(), secret=request.param, **options)
        cache.clear()
        caches.append(cache)
        return cache

    request.cls.cache_factory = make
    yield
    for cache in caches:
        cache.close()


TestShardCache = type("TestShardCache", tuple(MIXINS), {})
