"""Django's tests of every backend, and those of its memcached backends that are about any server."""

from __future__ import annotations

from cache.tests import BaseCacheTests, BaseMemcachedTests, caches_setting_for_tests
from django.test import TestCase, override_settings

from shardcache import NotACounterError

PARAMS = {"BACKEND": "suite_cache.Tested", "LOCATION": ""}
EXCLUDED = {"cull", "zero_cull"}  # servers evict by themselves


@override_settings(CACHES=caches_setting_for_tests(base=PARAMS, exclude=EXCLUDED))
class ShardCacheTests(BaseCacheTests, TestCase):
    """All that Django asks of a backend."""

    base_params = PARAMS
    incr_decr_type_error = NotACounterError

    test_default_never_expiring_timeout = BaseMemcachedTests.test_default_never_expiring_timeout
    test_default_far_future_timeout = BaseMemcachedTests.test_default_far_future_timeout
    test_deletes_key_on_failed_set = BaseMemcachedTests.test_memcached_deletes_key_on_failed_set
