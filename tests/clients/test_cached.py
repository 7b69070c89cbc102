"""`cached` and `get_or_set` on every kind of node, blocking and asyncio."""

from __future__ import annotations

import time

import pytest

import shardcache
from clients.sources import Driven
from shardcache import Client, NodeError, UncacheableResultError
from shardcache.operations.invalidation.generations import LOOK_AGAIN


@pytest.mark.parametrize("lock", [False, "local", "shard", True])
def test_the_second_call_is_a_hit(source, lock):
    """However the call is written; other arguments are another value."""
    f = source.cached(lock=lock)
    assert [f(1), f(number=1), f(), f(2)] == ["made"] * 4
    assert source.calls == [1, 2]
    info = f.cache_info()
    assert (info.hits, info.misses, info.recomputes) == (2, 2, 2)
    assert source.client.stats().protection["recomputes"] == 2


@pytest.mark.parametrize(
    "result", [None, 0, "", b"", [1, (2,)], {"k": {1, 2}}, 10**400, "text", b"bytes", 1.5, 42]
)
def test_a_hit_returns_what_was_stored(source, result):
    """The type included, with an age or without; `None` is a value."""
    source.result = result
    for terms in ({}, {"stale": 60}, {"lock": True, "early": 0.5, "tags": ["t"]}):
        f = source.cached(namespace=str(terms), **terms)
        assert (f(), f()) == (result, result)
        assert type(f()) is type(result)
    assert len(source.calls) == 3


def test_the_extras(source):
    """`get`, `set`, `refresh`, `invalidate`, `bypass` and `key_for` do what they say."""
    f = source.cached(lock="shard")
    assert f.get(1) is None
    assert f.set("put", 1) is True
    assert (f.get(1), f(1), source.calls) == ("put", "put", [])
    assert f.refresh(1) == "made"
    assert (f.get(1), source.calls) == ("made", [1])
    assert source.client.get(f.key_for(1)) == "made"
    assert f.invalidate(1) is True
    assert f.invalidate(1) is False
    assert f.get(1) is None
    assert f.bypass(5) == "made"
    assert (f.get(5), source.calls) == (None, [1, 5])
    assert f.policy.ttl == 60


def test_tags(source):
    """`invalidate_tag` makes all values of a tag misses, and no others."""
    f = source.cached(tags=["user:{number}", "users"])
    g = source.cached(tags=["user:{number}"], namespace="g")
    for function in (f, g):
        assert [function(1), function(2), function(1), function(2)] == ["made"] * 4
    assert source.calls == [1, 2, 1, 2]
    assert source.client.invalidate_tag("user:1") is True
    assert (f.get(1), g.get(1), f.get(2)) == (None, None, "made")
    assert [f(1), g(1), f(1), g(1), f(2)] == ["made"] * 5
    assert source.calls == [1, 2, 1, 2, 1, 1]
    assert f.invalidate_tag("users") is True
    assert (f.get(1), f.get(2), g.get(1)) == (None, None, "made")


def test_a_tag_invalidated_during_a_recompute_voids_it(nodes):
    """The value is a miss afterwards."""
    versions = [1]
    with Client(nodes, timeout=5.0) as client:

        @client.cached(ttl=60, tags=["t"], namespace="f")
        def f():
            version = versions[-1]
            if version == 1:
                versions.append(2)
                assert client.invalidate_tag("t")
            return version

        assert [f(), f(), f()] == [1, 2, 2]


def test_all_values_of_a_function(source):
    """`invalidate_all` is seen at once here, and by another client within about a second."""
    f = source.cached()
    g = source.cached(namespace="g")
    assert [f(1), f(2), g(1)] == ["made"] * 3
    assert f.invalidate_all() is True
    assert (f.get(1), f.get(2), g.get(1)) == (None, None, "made")
    assert [f(1), f(1)] == ["made"] * 2
    assert source.calls == [1, 2, 1, 1]


def test_invalidate_all_reaches_an_idle_process(memcached_servers):
    """A process that has not called for a while does not serve the old value once more."""
    urls = [server.url for server in memcached_servers]
    with Client(urls, timeout=5.0) as one, Client(urls, timeout=5.0) as other:
        calls = []

        def f():
            calls.append(1)
            return len(calls)

        here, there = (client.cached(ttl=60, namespace="f")(f) for client in (one, other))
        assert (here(), there()) == (1, 1)
        here.invalidate_all()
        time.sleep(2 * LOOK_AGAIN + 0.1)
        assert (there(), here()) == (2, 2)


def test_errors_reach_the_caller(source):
    """The function's own exceptions are never swallowed, nor stored unless asked for."""
    source.result = ValueError("no such user", 7)
    for lock in (False, "shard", True):
        f = source.cached(lock=lock, namespace=str(lock))
        for _ in range(2):
            with pytest.raises(ValueError, match="no such user"):
                f(1)
    assert len(source.calls) == 6


def test_errors_may_be_stored(source):
    """A listed type, or one below it, is raised from the cache for a moment."""
    source.result = FileNotFoundError("no such user", 7)
    f = source.cached(cache_errors=OSError, error_ttl=30)
    for _ in range(3):
        with pytest.raises(FileNotFoundError) as raised:
            f(1)
        assert raised.value.args == ("no such user", 7)
    assert source.calls == [1]
    assert f.get(1) is None
    assert source.client.get(f.key_for(1), "nothing") == "nothing"
    other = source.cached(namespace="other")
    with pytest.raises(FileNotFoundError):
        other(1)
    other_kinds = source.cached(cache_errors=KeyError)  # it finds an error that it does not know
    source.result = "made"
    assert other_kinds(1) == "made"


def test_a_result_that_condition_refuses_is_not_stored(source):
    """It is returned. So is a result without a ttl."""
    f = source.cached(condition=lambda result: result == "good", lock=True)
    assert [f(1), f(1)] == ["made", "made"]
    assert source.calls == [1, 1]
    source.result = "good"
    assert [f(1), f(1)] == ["good", "good"]
    assert source.calls == [1, 1, 1]
    g = source.cached(ttl=lambda result: 0 if result == "good" else 60, namespace="g")
    assert [g(1), g(1)] == ["good", "good"]
    assert len(source.calls) == 5
    assert f.cache_info().uncached == 2


def test_none_may_be_left_unstored(source):
    """With `cache_none=False` each call recomputes."""
    source.result = None
    f = source.cached(cache_none=False)
    assert [f(1), f(1)] == [None, None]
    assert source.calls == [1, 1]


def test_a_result_that_cannot_be_stored_is_returned_or_an_error(source):
    """The error names the key and the type; nothing fails silently."""
    source.result = object()
    f = source.cached(lock="shard")
    assert [f(1), f(1)] == [source.result] * 2
    assert f.cache_info().uncached == 2
    f = source.cached(lock="shard", on_uncacheable="raise", version=1)
    with pytest.raises(UncacheableResultError, match="object") as raised:
        f(1)
    assert isinstance(raised.value.__cause__, shardcache.EncodeError)


@pytest.mark.parametrize("kind", ["memcached", "redis"])
@pytest.mark.parametrize("lock", [False, "shard", True])
def test_garbage_is_a_miss(request, kind, lock):
    """A value that cannot be read is recomputed, counted, and replaced."""
    urls = [server.url for server in request.getfixturevalue(f"{kind}_servers")]
    calls = []
    with Client(urls, timeout=5.0) as client, Client(urls, codec="json", timeout=5.0) as other:

        @client.cached(ttl=60, lock=lock, namespace="f")
        def f():
            calls.append(1)
            return ["made"]

        other.set(f.key_for(), {"by": "another codec"})
        assert [f(), f()] == [["made"], ["made"]]
        assert len(calls) == 1
        assert sum(node.client["decode_failures"] for node in client.stats().values()) >= 1


def test_get_or_set(source):
    """The same for one key, with the terms of `cached`."""
    client = source.client
    made = [
        client.get_or_set("k", lambda: source.make(1), ttl=60, lock="shard", stale=5)
        for _ in range(3)
    ]
    assert made == ["made"] * 3
    assert source.calls == [1]
    assert client.get("k") == "made"
    client.set("j", "there")
    assert client.get_or_set("j", lambda: source.make(2)) == "there"
    assert source.calls == [1]


def test_stale_values_are_served_while_they_are_refreshed(source):
    """After the ttl the old value is there at once, and the new one soon."""
    f = source.cached(ttl=0.2, jitter=0.0, stale=60)
    assert f(1) == "made"
    source.result = "anew"
    time.sleep(0.25)
    first = f(1)
    assert first == ("made" if isinstance(f, Driven) else "anew")  # threads make it inline
    end = time.monotonic() + 5.0
    while f.get(1) != "anew":
        assert time.monotonic() < end
        f(1)
        time.sleep(0.01)
    assert f.cache_info().stale >= 1


def test_a_failing_node_makes_the_function_run(make_memcached):
    """The failure is counted, or raised if the policy says so."""
    server = make_memcached()
    with Client(server.url, timeout=0.2) as client:
        server.kill()

        @client.cached(ttl=60, lock=True, namespace="f")
        def f():
            return "made"

        @client.cached(ttl=60, on_error="raise", namespace="g")
        def g():
            return "made"

        assert f() == "made"
        assert f.cache_info().cache_errors >= 1
        with pytest.raises(NodeError):
            g()
