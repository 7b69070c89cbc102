"""A value that cannot be decoded is a miss, and counts once for each call that reads it."""

from __future__ import annotations

import pytest

from shardcache import Observer
from shardcache.testing.driving import make_client

NO_JSON = b"\xff{"


class Failures(Observer):
    """Counts the values that could not be decoded."""

    def __init__(self):
        self.count = 0

    def decode_failed(self, _):
        """Count one."""
        self.count += 1


def recompute(client, call, **options):
    """Call a function whose stored value cannot be read."""
    if call == "cached":
        function = client.cached(60, key="k", namespace="f", **options)(lambda: 7)
        key = function.key_for()
    else:
        key = "k"
    client.view(codec="raw").set(key, NO_JSON)
    if call == "cached":
        return function()
    if call == "get_or_set":
        return client.get_or_set(key, lambda: 7, 60, **options)
    return client.get_or_set_many([key], lambda keys: dict.fromkeys(keys, 7), 60, **options)[key]


@pytest.mark.parametrize("stale", [0, 5])
@pytest.mark.parametrize("lock", [False, "shard", True])
@pytest.mark.parametrize("call", ["cached", "get_or_set", "get_or_set_many"])
def test_a_recompute_counts_it_once(mode, all_urls, call, lock, stale):
    """Though the value is read again when its recompute is claimed: it is the same."""
    if call == "cached" and mode == "asyncio":
        call = "get_or_set"
    if call == "get_or_set_many" and lock is True:
        lock = "local"
    failures = Failures()
    client = make_client(mode, all_urls, codec="json", timeout=10, observers=[failures])
    try:
        assert recompute(client, call, lock=lock, stale=stale) == 7
        counted = client.counters().values()
        assert sum(node["decode_failures"] for node in counted) == failures.count == 1
        assert sum(node["misses"] for node in counted) == 1
    finally:
        client.close()
