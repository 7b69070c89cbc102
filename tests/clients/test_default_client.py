"""`shardcache.cached` and `configure`: the default client."""

from __future__ import annotations

import asyncio
import threading

import pytest

import shardcache
from shardcache import ConfigurationError
from shardcache.decorators import Defaults
from shardcache.settings import Settings


class TestDefaults:
    """`shardcache.cached` and `configure`."""

    def test_the_client_is_made_at_the_first_call(self, monkeypatch):
        """Not at import, nor at decoration."""
        monkeypatch.setenv("SHARDCACHE_URL", "no-such-scheme://x")

        @shardcache.cached(ttl=60, namespace="first call")
        def f():
            return 1

        shardcache.configure("memory://a,b,c")
        assert (f(), f(), f.cache_info().hits) == (1, 1, 1)

    def test_without_nodes_the_process_caches_and_warns(self, monkeypatch, caplog):
        """Once for each client."""
        monkeypatch.delenv("SHARDCACHE_URL", raising=False)
        monkeypatch.delenv("SHARDCACHE_CONFIG", raising=False)
        defaults = Defaults()
        for _ in range(2):
            assert len(defaults.client().nodes) == 3
            assert len(defaults.async_client().nodes) == 3
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "SHARDCACHE_URL is not set" in caplog.text
        caplog.clear()
        monkeypatch.setenv("SHARDCACHE_URL", "memory://a")
        assert len(Defaults().client().nodes) == 1
        assert not caplog.records

    def test_one_decorator_takes_both_kinds_of_functions(self):
        """One default client serves every loop."""
        shardcache.configure(["memory://a", "memory://b"], namespace="n")
        calls = []

        @shardcache.cached(ttl=60, lock="shard", namespace="both")
        async def f(number):
            calls.append(number)
            return number

        assert [asyncio.run(f(1)), asyncio.run(f(1)), asyncio.run(f(2))] == [1, 1, 2]
        assert calls == [1, 2]

    def test_decorated_functions_follow_a_new_configuration(self):
        """What is decorated already uses the new nodes from then on."""
        shardcache.configure("memory://a")

        @shardcache.cached(ttl=60, namespace="anew")
        def f():
            return 1

        f()
        shardcache.configure(Settings.from_url("memory://b"))
        f()
        assert f.cache_info().misses == 2
        with pytest.raises(ConfigurationError, match="not both"):
            shardcache.configure(Settings.from_url("memory://b"), namespace="x")

    def test_of_many_threads_one_makes_the_client(self):
        """There is one default client."""
        defaults = Defaults()
        defaults.configure(Settings.from_url("memory://a"))
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(defaults.client())) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(set(found)) == 1

    async def test_a_configuration_beside_a_close_is_kept(self, monkeypatch):
        """Another thread configures between the begin of a close and its lock."""
        defaults = Defaults()
        defaults.configure(Settings.from_url("memory://a"))
        creating = defaults._creating

        class Slow:
            """A lock that is free only after another thread has configured."""

            def current(self):
                monkeypatch.setattr(defaults, "_creating", creating)
                defaults.configure(Settings.from_url("memory://b"))
                return creating.current()

        monkeypatch.setattr(defaults, "_creating", Slow())
        await defaults.aclose()
        assert [node.name for node in defaults.client().nodes] == ["b"]
