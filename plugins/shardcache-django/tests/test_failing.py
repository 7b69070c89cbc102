"""A node that fails costs misses; what must not take it for a missing key raises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from django.contrib.sessions.backends import cache as theirs
from django.contrib.sessions.backends.base import UpdateError
from django.core.cache import caches
from django.test import override_settings
from shardcache_django import sessions

from shardcache import Client, NodeError
from shardcache.testing.clusters import ServerCluster
from shardcache.testing.servers import Server

pytestmark = pytest.mark.servers

LOCAL = "django.core.cache.backends.locmem.LocMemCache"


@pytest.fixture
def servers(server_cluster: ServerCluster) -> ServerCluster:
    """Return two servers of this test's own, of each kind in turn."""
    return server_cluster


@pytest.fixture(params=[Server.kill, Server.pause], ids=["killed", "stopped"])
def fail(request: pytest.FixtureRequest) -> Callable[[Server], None]:
    """Return what a server suffers: it refuses connections, or takes them and answers nothing."""
    return request.param


@pytest.fixture
def fail_first(servers: ServerCluster, fail: Callable[[Server], None]) -> Callable[[], None]:
    """Return what lets the first server fail."""
    return lambda: fail(servers[0])


def key_of(server):
    """Return a key that lives on this server."""
    cache = caches["default"]
    keys = (f"key{number}" for number in range(1000))
    return next(key for key in keys if cache.client.node_for(cache.make_key(key)).url == server.url)


def session_on(server):
    """Return a new session that lives on this server."""
    backend = caches["default"]
    while True:
        store = sessions.SessionStore()
        store.create()
        if backend.client.node_for(backend.make_key(store.cache_key)).url == server.url:
            return store


@pytest.fixture
def failed(use, servers, fail, face):
    """Return a cache of two servers, and a key of the one that fails."""
    cache = face(use([server.url for server in servers], OPTIONS={"timeout": 0.2}))
    key = key_of(servers[0])
    cache.set(key, 41)
    fail(servers[0])
    return cache, key


def test_reads_and_writes_miss(failed):
    """A page without its cached part is slower, and still a page."""
    cache, key = failed
    assert cache.get(key, "miss") == "miss"
    assert cache.get_many([key]) == {}
    cache.set(key, 1)
    assert cache.set_many({key: 1}) == [key]
    assert cache.delete(key) is False
    cache.delete_many([key])
    assert cache.touch(key) is False
    assert cache.has_key(key) is False
    assert cache.get_or_set(key, lambda: "computed") == "computed"
    assert cache.ttl(key) == 0
    assert cache.clear() is False


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("incr", ()),
        ("decr", ()),
        ("add", (1,)),
        ("incr_version", ()),
        ("decr_version", ()),
    ],
)
def test_failed_is_not_missing(failed, call, args):
    """A rate limiter that took a dead node for a new window would let everybody in."""
    cache, key = failed
    with pytest.raises(NodeError) as caught:
        getattr(cache, call)(key, *args)
    assert not isinstance(caught.value, ValueError)


def test_the_other_node_goes_on(failed, servers):
    """With all calls."""
    cache, _ = failed
    key = key_of(servers[1])
    assert cache.add(key, 1) is True
    assert cache.incr(key) == 2
    assert cache.get(key) == 2


def test_sync_and_async_code_know_of_the_same_failures(use, servers):
    """What one of them finds out, the other need not."""
    cache = use([server.url for server in servers])
    key = key_of(servers[0])
    servers[0].kill()
    assert cache.get(key) is None
    assert [node.url for node in cache.client.ejected] == [servers[0].url]
    assert [node.url for node in cache.async_client.ejected] == [servers[0].url]


def test_with_on_error_raise_every_call_raises(use, servers, fail, face):
    """As the option says."""
    options = {"timeout": 0.2, "on_error": "raise"}
    cache = face(use([server.url for server in servers], OPTIONS=options))
    key = key_of(servers[0])
    fail(servers[0])
    for call in ("get", "delete", "touch"):
        with pytest.raises(NodeError):
            getattr(cache, call)(key)


def call_save(store, call):
    """Save a session by one of its methods."""
    asyncio.run(store.asave()) if call == "asave" else store.save()


@pytest.mark.parametrize("call", ["save", "asave"])
@pytest.mark.parametrize(
    "engine", [theirs.SessionStore, sessions.SessionStore], ids=["theirs", "ours"]
)
def test_a_session_is_not_saved_for_ever(use, servers, fail, call, engine):
    """Django's session store tries 10,000 keys; with every node down it ends within three seconds."""
    use([server.url for server in servers], OPTIONS={"timeout": 0.5})  # the default
    for server in servers:
        fail(server)
    store = engine()
    store["user"] = 7
    began = time.monotonic()
    with pytest.raises(NodeError):
        call_save(store, call)
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("call", ["save", "asave"])
def test_new_sessions_are_on_nodes_that_answer(use, servers, fail, call):
    """Each of them is created, and found; Django's own engine raises for every second one."""
    use([server.url for server in servers], OPTIONS={"timeout": 0.1})
    fail(servers[0])
    for user in range(20):
        store = sessions.SessionStore()
        store["user"] = user
        call_save(store, call)
        assert theirs.SessionStore(store.session_key)["user"] == user


def test_a_session_of_a_dead_node_is_another_one(use, servers, fail):
    """Its user gets a new session, and keeps that one; logging in gives it a new key."""
    use([server.url for server in servers], OPTIONS={"timeout": 0.1})
    store = session_on(servers[0])
    fail(servers[0])
    visit = sessions.SessionStore(store.session_key)
    assert "user" not in visit
    visit["user"] = 7
    visit.save()
    visit.cycle_key()
    assert visit.session_key != store.session_key
    assert sessions.SessionStore(visit.session_key)["user"] == 7


@pytest.fixture
def visit(use, servers):
    """Return a session that a request has read and changed, and the counters of its node."""
    cache = use([server.url for server in servers], OPTIONS={"timeout": 0.2})
    store = sessions.SessionStore(session_on(servers[0]).session_key)
    store["user"] = 7
    name = cache.client.nodes[0].name
    return store, lambda: [client.counters()[name] for client in (cache.client, cache.async_client)]


@pytest.mark.parametrize("moment", ["before", "between"])
@pytest.mark.parametrize("call", ["save", "asave"])
def test_a_request_that_has_read_its_session_is_answered(visit, fail_first, call, moment, caplog):
    """Its node fails before it is saved: nobody has deleted it, so Django's middleware refuses nothing.

    What the request has changed is lost: the log says so once, and the counters have the error.
    """
    store, counters = visit
    if moment == "before":
        fail_first()
    else:  # after Django has seen that the session is there
        store.get_expiry_age = lambda: (fail_first(), 60)[1]
        store.aget_expiry_age = lambda: (fail_first(), asyncio.sleep(0, 60))[1]
    call_save(store, call)
    lost = [each for each in caplog.messages if each.startswith("session not saved, and what its ")]
    assert len(lost) == 1
    assert caches["default"].client.nodes[0].name in lost[0]
    assert sum(each["errors"] for each in counters()) > 0
    assert sessions.SessionStore(store.session_key).get("user") is None


@pytest.mark.parametrize("call", ["save", "asave"])
def test_a_session_that_cannot_be_read_any_more_is_missing(visit, call):
    """A program with another secret has written to its key."""
    store, _ = visit
    cache = caches["default"]
    with Client(cache.client.nodes, codec="pickle", secret="of another program") as other:
        other.set(cache.make_key(store.cache_key), {"user": 8})
    with pytest.raises(UpdateError):
        call_save(store, call)


@pytest.mark.parametrize("save", ["save", "asave"])
@pytest.mark.parametrize("backend", ["shardcache_django.ShardCache", LOCAL])
def test_a_session_that_was_deleted_is_not_saved(servers, save, backend):
    """Its user has logged out in another request."""
    location = [server.url for server in servers] if backend != LOCAL else "here"
    with override_settings(CACHES={"default": {"BACKEND": backend, "LOCATION": location}}):
        store = sessions.SessionStore()
        store.create()
        visit = sessions.SessionStore(store.session_key)
        visit["user"] = 7
        store.delete()
        with pytest.raises(UpdateError):
            asyncio.run(visit.asave()) if save == "asave" else visit.save()
