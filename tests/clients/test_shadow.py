"""A client with a shadow compares a sample of its reads with other nodes, beside its callers."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections import Counter

import pytest

from operations.harness import EventLog
from shardcache import Client, ConfigurationError, Shadow, ShadowCompared
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

KEYS = [f"user:{number}" for number in range(400)]
WITHIN = 30.0


def urls_of(servers):
    """Return the URLs of servers."""
    return [server.url for server in servers]


def counts(client):
    """Return the counts that are not zero, once all that was read is compared."""
    eventually(lambda: not client.counters().shadow["waiting"], within=WITHIN)
    return {name: count for name, count in client.counters().shadow.items() if count}


def threads():
    """Return how many threads compare."""
    return sum(thread.name == "shardcache shadow" for thread in threading.enumerate())


@pytest.fixture
def pools(memcached_servers, redis_servers):
    """Return the URLs of three memcached nodes, and of three Redis nodes, all empty."""
    return urls_of(memcached_servers), urls_of(redis_servers)


def shadowed(mode, here, there, log=None, **settings):
    """Return a client that compares all of its reads, differences at once."""
    shadow = {"sample": 1.0, "settle": 0, **settings.pop("shadow", {})}
    observers = [] if log is None else [log]
    return make_client(
        mode, here, shadow=Shadow(there, **shadow), timeout=10, observers=observers, **settings
    )


@pytest.mark.parametrize(
    "settings", [{}, {"secret": "s" * 16}, {"codec": "json"}, {"clearable": True}]
)
def test_planted_differences_are_found_and_no_others(mode, pools, settings):
    """Between memcached and Redis, for single reads and for many, whatever stands around a value."""
    memcached, redis = pools
    values = {key: {"name": key} for key in KEYS}
    wrong, absent = KEYS[::10], KEYS[5::10]
    with Client(redis, timeout=10, **settings) as other:
        other.set_many({**values, **dict.fromkeys(wrong, "wrong")}, ttl=600)
        other.delete_many(absent)
    log = EventLog(ShadowCompared)
    client = shadowed(mode, memcached, redis, log, **settings)
    client.set_many(values, ttl=600)
    assert len(client.get_many(KEYS[:200])) == 200
    for key in KEYS[200:]:
        assert client.get(key) == {"name": key}
    expected = {"same": 320, "differs": 40, "only_here": 40}
    assert counts(client) == expected
    assert Counter(event.outcome for event in log.events) == expected
    told = {event.key.rpartition(b"user:")[2] for event in log.events if event.outcome == "differs"}
    assert told == {key.removeprefix("user:").encode() for key in wrong}
    client.close()


def test_what_a_cached_function_reads_is_compared(mode, pools):
    """When each side has recomputed the value by itself, with its own age and tags."""
    memcached, redis = pools
    with Client(redis) as other:
        other.get_or_set("k", lambda: [1], ttl=60, stale=60, tags=["t"])
        other.get_or_set("l", lambda: [1], ttl=60, stale=60)
    client = shadowed(mode, memcached, redis)
    client.get_or_set("k", lambda: [1], ttl=60, stale=60, tags=["t"])
    client.get_or_set("l", lambda: [2], ttl=60, stale=60)
    eventually(lambda: not client.counters().shadow["waiting"], within=WITHIN)
    before = client.counters().shadow
    client.get_or_set("k", lambda: [1], ttl=60, stale=60, tags=["t"])
    client.get_or_set("l", lambda: [2], ttl=60, stale=60)
    eventually(lambda: not client.counters().shadow["waiting"], within=WITHIN)
    after = client.counters().shadow
    assert {name: after[name] - before[name] for name in ("same", "differs")} == {
        "same": 1,
        "differs": 1,
    }
    client.close()


def test_ttls_are_compared(mode, pools):
    """Within two seconds, for memcached counts whole ones."""
    memcached, redis = pools
    with Client(redis) as other:
        other.set("k", "v", ttl=60.5)
        other.set("l", "v", ttl=90)
        other.set("m", "v")
    client = shadowed(mode, memcached, redis)
    client.set("k", "v", ttl=60)
    client.set("l", "v", ttl=60)
    client.set("m", "v", ttl=60)
    client.get_many(["k", "l", "m"])
    assert counts(client) == {"same": 1, "ttl_differs": 2}
    client.close()


def test_another_strategy_on_the_same_nodes(mode, memcached_servers):
    """It shows which keys would be missed after the switch."""
    urls = urls_of(memcached_servers)
    client = shadowed(mode, urls, urls, shadow={"strategy": "ketama"})
    client.set_many(dict.fromkeys(KEYS, "v"))
    client.get_many(KEYS)
    found = counts(client)
    moved = sum(
        client.node_for(key).name != other for key, other in zip(KEYS, _owners(urls), strict=True)
    )
    assert 0 < moved < len(KEYS)
    assert found == {"same": len(KEYS) - moved, "only_here": moved}
    client.close()


def _owners(urls):
    with Client(urls, strategy="ketama") as other:
        return [other.node_for(key).name for key in KEYS]


def test_nothing_is_written_to_the_shadow(mode, pools):
    """It stays as empty as it was."""
    memcached, redis = pools
    client = shadowed(mode, memcached, redis)
    client.set("k", 1)
    client.get("k")
    client.get_or_set("l", lambda: 1, ttl=60)
    client.incr("n", initial=1)
    counts(client)
    with Client(redis) as other:
        sizes = [stats.server.get("db0") for stats in other.stats().values()]
    assert sizes == [None, None, None]
    client.close()


def test_a_silent_shadow_costs_callers_nothing(mode, memcached_servers, make_redis):
    """It is told and counted; callers read on, and what finds no room is dropped."""
    silent = make_redis()
    client = shadowed(mode, urls_of(memcached_servers), silent.url, shadow={"queue": 50})
    client.set_many(dict.fromkeys(KEYS, "v"))
    client.ping()
    silent.pause()
    assert len(client.get_many(KEYS)) == len(KEYS)
    assert client.counters().shadow["dropped"] >= len(KEYS) - 50
    silent.kill()
    eventually(lambda: not client.counters().shadow["waiting"], within=WITHIN)
    found = client.counters().shadow
    assert found["failed"] + found["dropped"] == len(KEYS)
    assert client.ejected == ()
    client.close()


def test_the_first_failure_is_logged(mode, memcached_servers, caplog):
    """Once; the rest is in the counts."""
    client = shadowed(mode, urls_of(memcached_servers), "redis://127.0.0.1:1")
    with caplog.at_level(logging.WARNING, logger="shardcache"):
        client.get("k")
        assert counts(client) == {"failed": 1}
        client.get("l")
        assert counts(client) == {"failed": 2}
    (record,) = caplog.records
    assert record.getMessage().startswith("shadow: a key cannot be compared: 127.0.0.1:1: ")
    client.close()


def test_the_client_s_own_counters_stay_as_they_are(mode, pools):
    """Reads of the comparison are no calls of the client."""
    memcached, redis = pools
    client = shadowed(mode, memcached, redis)
    client.get_many(KEYS)
    counts(client)
    assert sum(node["calls"] for node in client.counters().values()) == len(memcached)
    assert set(client.counters()) == {node.name for node in client.nodes}
    client.close()


def test_it_follows_a_change_of_nodes(mode, pools):
    """Keys are looked for where they are now."""
    memcached, redis = pools
    client = shadowed(mode, memcached[:1], redis)
    with Client(redis) as other:
        other.set_many(dict.fromkeys(KEYS, "v"))
    client.get("k")
    counts(client)
    client.set_nodes(memcached)
    client.set_many(dict.fromkeys(KEYS, "v"))
    client.get_many(KEYS)
    assert counts(client) == {"neither": 1, "same": len(KEYS)}
    client.close()


def test_views_are_compared_too(mode, pools):
    """They share the client's port, with names of their own."""
    memcached, redis = pools
    client = shadowed(mode, memcached, redis)
    with Client(redis, namespace="shop") as other:
        other.set("k", "v")
    view = client.view(namespace="shop")
    view.set("k", "v")
    assert view.get("k") == "v"
    assert counts(view) == {"same": 1}
    client.close()


def test_a_client_of_memory_nodes_can_be_compared(mode, redis_servers):
    """The thread looks into the very same memory."""
    client = shadowed(mode, "memory://a,b", urls_of(redis_servers))
    client.set("k", "v")
    client.get("k")
    assert counts(client) == {"only_here": 1}
    client.close()


def test_close_ends_the_thread_and_so_does_dropping_the_client(mode, pools):
    """It starts at the first call."""
    eventually(lambda: threads() == 0, within=WITHIN)  # those of other tests end
    client = shadowed(mode, *pools)
    assert threads() == 0
    client.get("k")
    assert threads() == 1
    client.close()
    eventually(lambda: threads() == 0, within=WITHIN)
    client = shadowed("blocking", *pools)
    client.get("k")
    del client
    gc.collect()
    eventually(lambda: threads() == 0, within=WITHIN)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_compares_what_it_reads(pools):
    """With its own thread, and nothing of what its parent has left."""
    client = shadowed("blocking", *pools, shadow={"settle": 3600})
    client.set("k", "v")
    client.get("k")
    client.get("m")
    eventually(lambda: client.counters().shadow["neither"] == 1, within=WITHIN)
    assert client.counters().shadow["waiting"] == 1
    if (child := os.fork()) == 0:
        status = 1
        try:
            client.get("l")
            assert counts(client) == {"neither": 2}
            client.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    client.close()


def test_without_a_shadow_there_is_nothing():
    """No counts, no thread, and the plain port."""
    client = Client("memory://a")
    client.get("k")
    assert client.counters().shadow == {}
    assert client._cluster.io is client._io
    client.close()


def test_an_unknown_strategy_is_refused():
    """As for the client's own nodes."""
    with pytest.raises(ConfigurationError, match="no such strategy"):
        Client("memory://a", shadow=Shadow("redis://127.0.0.1:1", strategy="kettle"))
