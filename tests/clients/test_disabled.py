"""`SHARDCACHE_DISABLED`: a client that finds and stores nothing."""

from __future__ import annotations

import logging

import pytest

from clients.sources import Driven, Source
from shardcache import KEEP, ConfigurationError, LockUnavailable, NodeUnavailableError
from shardcache.testing.driving import MODES, DrivenClient, make_client

DOWN = "memcached://127.0.0.1:1"


@pytest.fixture(params=MODES)
def make_disabled(request, monkeypatch):
    """Return a maker of clients that are disabled, closed at the end."""
    monkeypatch.setenv("SHARDCACHE_DISABLED", "1")
    made = []

    def make(*nodes, **settings):
        made.append(make_client(request.param, list(nodes or ["memory://a"]), **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_plain_calls_find_and_store_nothing(make_disabled, on_error):
    """They answer as if every node were down; no node is asked, and none is ejected."""
    client = make_disabled(DOWN, on_error=on_error, clearable=True)
    assert client.set("k", 1) is client.add("k", 1) is client.replace("k", 1) is False
    assert client.get("k", "default") == "default"
    assert client.gets("k") == (None, None)
    assert client.cas("k", 1, object()) is client.cas("k", 1, object(), ttl=KEEP) is False
    assert client.exists("k") is False
    assert client.ttl("k") is None
    assert client.get_many(["k", "l"]) == {}
    assert client.set_many({"k": 1, "l": 2}) == ["k", "l"]
    assert client.delete("k") is client.touch("k", 60) is False
    assert client.delete_many(["k", "l"]) == 0
    assert client.incr("k", initial=1) is client.decr("k", floor=None) is None
    assert client.invalidate_tag("t") is client.clear() is False
    assert client.view(namespace="other").set("k", 1) is False
    assert client.ejected == ()
    assert client.counters()["127.0.0.1:1"]["errors"] == 0


def test_functions_are_called_each_time(make_disabled):
    """No argument has to make a key, and no error of a node is seen or counted."""
    source = Source(make_disabled(DOWN))
    f = source.cached(tags=["t"], lock=True, stale=60, on_error="raise")
    argument = object()
    assert [f(1), f(1), f(argument), f.refresh(1)] == ["made"] * 4
    assert source.calls == [1, 1, argument, 1]
    assert f.get(1) is None
    assert f.set("put", 1) is f.invalidate(1) is f.invalidate_all() is False
    assert f.invalidate_tag("t") is False
    assert f.key_for(1) == f.key_for(number=1)
    assert not any(f.cache_info())
    assert [source.client.get_or_set("k", lambda: 7, lock=True) for _ in range(2)] == [7, 7]


def test_what_is_about_the_nodes_reaches_them(make_disabled):
    """A lock is no cache, and a ping is for the operator."""
    client = make_disabled("memory://a", "memory://b", "memory://c")
    assert all(isinstance(seconds, float) for seconds in client.ping().values())
    lock = as_blocking(client.lock("report"), client)
    lease = lock.try_acquire()
    assert lock.try_acquire() is None
    assert lease.release() is True
    down = make_disabled(DOWN)
    assert isinstance(down.ping()["127.0.0.1:1"], NodeUnavailableError)
    with pytest.raises(LockUnavailable):
        as_blocking(down.lock("report"), down).try_acquire()


def as_blocking(lock, client):
    """Return a lock whose calls block, of a client of either kind."""
    return Driven(lock, client.loop) if isinstance(client, DrivenClient) else lock


def test_a_line_in_the_log(make_disabled, caplog):
    """Each client says so once; a view of it does not."""
    with caplog.at_level(logging.WARNING, "shardcache"):
        make_disabled().view(namespace="other")
    (record,) = caplog.records
    assert record.getMessage().startswith("SHARDCACHE_DISABLED is set: ")


@pytest.mark.parametrize("text", ["0", "no", "false", "", " "])
def test_a_variable_that_disables_nothing(make_disabled, monkeypatch, text):
    """As if it were not set."""
    monkeypatch.setenv("SHARDCACHE_DISABLED", text)
    assert make_disabled().set("k", 1) is True


def test_any_other_text_is_refused(make_disabled, monkeypatch):
    """A switch must not be misread."""
    monkeypatch.setenv("SHARDCACHE_DISABLED", "maybe")
    with pytest.raises(ConfigurationError, match=r"^SHARDCACHE_DISABLED: must be yes, true, 1, "):
        make_disabled()
