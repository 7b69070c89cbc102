"""What Flask-Caching's memcached cache has stored is found, if the application asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cachelib import MemcachedCache
from shardcache_flask import ShardCache

from shardcache.testing.servers import Server

pytest.importorskip("pylibmc", reason="cachelib asks memcached through it; it has no newer wheels")
pytestmark = pytest.mark.servers

VALUES = {"page": "<p>text</p>", "visits": 7, "bytes": b"x", "report": {"sales": [1, (2,)]}}
PREFIX = "flask_cache_"


@pytest.fixture
def server_kind() -> str:
    """Return the only kind: what lies in a Redis has no mark of its type."""
    return "memcached"


@pytest.mark.parametrize(("read_unsigned", "found"), [(True, VALUES), (False, {})])
def test_values_of_pylibmc_are_read(
    servers: Sequence[Server], urls: Sequence[str], *, read_unsigned: bool, found: object
):
    """Pickles are among them, which run code, so only if they are to be trusted."""
    before = MemcachedCache([f"{s.host}:{s.port}" for s in servers], key_prefix=PREFIX)
    assert before.set_many(VALUES, timeout=60) == list(VALUES)
    cache = ShardCache(
        urls,
        key_prefix=PREFIX,
        clearable=False,
        strategy="modulo:profile=libmemcached",
        secret="a secret",
        read_unsigned=read_unsigned,
    )
    values = cache.get_dict(*VALUES)
    assert {key: value for key, value in values.items() if value is not None} == found
    assert cache.inc("visits") == before.get("visits") == 8
    cache.close()
