"""Django's tests of every backend, those of its memcached backends that suit any server, and of middleware."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from cache import tests as theirs
from django.core.cache import caches
from django.test import TestCase, override_settings
from sessions_tests import tests as sessions
from shardcache_django.sessions import SessionStore

from shardcache import NotACounterError

PARAMS = {"BACKEND": "suite_cache.Tested", "LOCATION": ""}
EXCLUDED = {"cull", "zero_cull"}  # servers evict by themselves
ATTEMPTS = 5


@override_settings(CACHES=theirs.caches_setting_for_tests(base=PARAMS, exclude=EXCLUDED))
class ShardCacheTests(theirs.BaseCacheTests, TestCase):
    """All that Django asks of a backend."""

    base_params = PARAMS
    incr_decr_type_error = NotACounterError

    _memcached = theirs.BaseMemcachedTests
    test_default_never_expiring_timeout = _memcached.test_default_never_expiring_timeout
    test_default_far_future_timeout = _memcached.test_default_far_future_timeout
    test_deletes_key_on_failed_set = _memcached.test_memcached_deletes_key_on_failed_set


def repeated(test: Callable[..., None]) -> Callable[..., None]:
    """Return a test that is tried again over empty caches, as Django's own `retry` does over full ones.

    memcached counts whole seconds: a value of one second may live for a moment only, and one of three
    for little more than two.
    """

    @wraps(test)
    def repeat(self: Any) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return test(self)
            except AssertionError:
                for cache in caches.all():
                    cache.clear()
        return test(self)

    return repeat


class ShardCacheSessionTests(sessions.CacheSessionTests):
    """All that Django asks of its sessions in the cache, of our engine."""

    backend = SessionStore


class CacheMiddlewareTest(theirs.CacheMiddlewareTest):
    """The middleware's tests, one of which reads values in the last second of their lives."""

    test_view_decorator = repeated(theirs.CacheMiddlewareTest.test_view_decorator)
