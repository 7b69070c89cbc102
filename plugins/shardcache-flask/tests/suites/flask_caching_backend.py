"""Run below Flask-Caching's own tests: its generic tests of a backend, on ours."""

from __future__ import annotations

import os
import uuid

import pytest
from shardcache_flask import FlaskCache
from test_backend_cache import GenericCacheTests


class TestFlaskCache(GenericCacheTests):
    """The tests of every backend."""

    _can_use_fast_sleep = False

    @pytest.fixture
    def make_cache(self):
        """Return what makes a cache, as an application does."""
        config = {
            "CACHE_SHARDCACHE_URL": os.environ["SUITE_URLS"].split(),
            "CACHE_KEY_PREFIX": uuid.uuid4().hex,
            "SECRET_KEY": "a secret",
        }
        cache = FlaskCache(None, config, [], {"default_timeout": 300})
        yield lambda: cache
        cache.close()
