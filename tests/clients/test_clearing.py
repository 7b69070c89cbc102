"""`clear()`: a client's namespace is emptied in one step, and no other."""

from __future__ import annotations

import math
import threading

import pytest

from shardcache import AsyncClient, Client, ConfigurationError, Observer
from shardcache.clients.base import caches_of
from shardcache.settings import Settings
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually

KEYS = ["plain", "two words", "k" * 300, b"\x00\xff", "~sc:l:odd", "4:shop:cart"]


@pytest.fixture(params=["memory", "memcached", "redis", "pymemcache", "mixed"])
def urls(request):
    """Return the URLs of three nodes."""
    if request.param == "memory":
        return ["memory://a", "memory://b", "memory://c"]
    memcached = [server.url for server in request.getfixturevalue("memcached_servers")]
    if request.param == "memcached":
        return memcached
    if request.param == "pymemcache":
        return [url.replace("memcached://", "pymemcache://") for url in memcached]
    redis = [server.url for server in request.getfixturevalue("redis_servers")]
    return redis if request.param == "redis" else [memcached[0], redis[1], "memory://c"]


@pytest.fixture(params=["memcached", "redis", "pymemcache"])
def shared_urls(request):
    """Return the URLs of three nodes that several clients share."""
    name = "redis_servers" if request.param == "redis" else "memcached_servers"
    return [
        server.url.replace("memcached://", f"{request.param}://")
        for server in request.getfixturevalue(name)
    ]


@pytest.fixture(params=MODES)
def make(request):
    """Return what makes clients of each kind; they are closed at the end."""
    made = []

    def make(urls, **settings):
        made.append(make_client(request.param, urls, **{"timeout": 5.0, **settings}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_every_call_works_and_finds_nothing_after_a_clear(make, urls, namespace):
    """Each call means what it means for any client, before a clear and after."""
    client = make(urls, clearable=True, namespace=namespace)
    for _ in range(3):
        assert client.get_many(KEYS) == {}
        assert client.set_many(dict.fromkeys(KEYS, "v")) == []
        assert client.get_many(KEYS) == dict.fromkeys(KEYS, "v")
        assert [client.get(key) for key in KEYS] == ["v"] * len(KEYS)
        assert client.add("plain", "w") is False
        assert client.replace("plain", "x") is True
        value, token = client.gets("plain")
        assert (value, client.cas("plain", "y", token)) == ("x", True)
        assert client.touch("plain", 60) is True
        assert [client.incr("n", 5, initial=1), client.incr("n", 5)] == [1, 6]
        assert client.delete("two words") is True
        assert client.delete_many(KEYS) == len(KEYS) - 1
        assert client.set("plain", "kept") is True
        _, token = client.gets("plain")
        assert client.clear() is True
        assert client.cas("plain", "late", token) is None
        assert client.incr("n") is None


def test_a_clear_touches_no_other_client(make, shared_urls):
    """Not clients of other namespaces, not those without the setting, and no locks."""
    client = make(shared_urls, clearable=True, namespace="shop")
    plain = make(shared_urls, namespace="shop")
    other = make(shared_urls, clearable=True, namespace="blog")
    for each in (client, plain, other):
        assert each.set("k", repr(each)) is True
    lease = client.lock("l").try_acquire()
    lease = client.loop.run_until_complete(lease) if hasattr(client, "loop") else lease
    assert client.clear() is True
    assert client.get("k") is None
    assert (plain.get("k"), other.get("k")) == (repr(plain), repr(other))
    assert lease.valid
    again = client.lock("l").try_acquire()
    assert (client.loop.run_until_complete(again) if hasattr(client, "loop") else again) is None


def test_a_clear_reaches_cached_functions(make, urls):
    """With their tags, in this process at once; a value under way is not stored."""
    client = make(urls, clearable=True)
    calls = []
    blocking = not hasattr(client, "loop")

    def compute(number):
        calls.append(number)
        return number

    async def compute_async(number):
        return compute(number)

    f = client.cached(ttl=60, namespace="n", tags=["t"], stale=10, lock=True)(
        compute if blocking else compute_async
    )

    def call(number):
        made = f(number)
        return made if blocking else client.loop.run_until_complete(made)

    for _ in range(2):
        assert [call(1), call(1), call(2)] == [1, 1, 2]
        assert client.clear() is True
    assert calls == [1, 2, 1, 2]


def test_a_recompute_during_a_clear_is_not_stored():
    """Callers after the clear do not join it."""
    version, began, end = [1], threading.Event(), threading.Event()
    with Client("memory://a,b,c", clearable=True) as client:

        @client.cached(ttl=60, namespace="n")
        def f():
            made = version[0]
            if made == 1:
                began.set()
                end.wait(30)
            return made

        thread = threading.Thread(target=f)
        thread.start()
        assert began.wait(30)
        version[0] = 2
        assert client.clear() is True
        assert f() == 2
        end.set()
        thread.join(30)
        assert f() == 2


@pytest.mark.slow
def test_other_processes_notice_a_clear(make, shared_urls):
    """Within about a second, and a process that starts then at once."""
    client, other = (make(shared_urls, clearable=True) for _ in range(2))
    client.set("k", 1)
    assert other.get("k") == 1
    assert client.clear() is True
    assert make(shared_urls, clearable=True).get("k") is None
    eventually(lambda: other.get("k") is None, within=20)
    assert other.set("k", 2) is True
    assert client.get("k") == 2


def test_keys_stay_on_their_nodes(make, shared_urls):
    """Keys are placed by their own names, as for any client, before a clear and after."""
    client, plain = make(shared_urls, clearable=True), make(shared_urls)
    assert client.fingerprint == plain.fingerprint
    keys = [f"k{number}" for number in range(30)]
    for _ in range(2):
        assert client.set_many(dict.fromkeys(keys, "v")) == []
        assert plain.get_many(keys) == {}
        for node in client.nodes:
            alone = make(node.url, clearable=True)
            held = stamped(client, alone).get_many(keys)
            assert set(held) == {key for key in keys if client.node_for(key) == node}
        assert client.clear() is True


def stamped(client, alone):
    """Return a client of one node that knows which generation another is in."""
    there = caches_of(getattr(client, "twin", client)).generations
    here = caches_of(getattr(alone, "twin", alone)).generations
    here.cleared.name, here.cleared.epoch = there.cleared.name, here.epoch
    here.due = math.inf
    return alone


def test_clients_without_the_setting_refuse_to_clear(make):
    """The error says what to do."""
    client = make("memory://a")
    with pytest.raises(ConfigurationError, match="clearable=True"):
        client.clear()


def test_observers_get_keys_without_the_stamp(make):
    """Without a generation in front."""

    class Log(Observer):
        def __init__(self):
            self.keys = []

        def keys_accessed(self, event):
            self.keys += event.keys

    log = Log()
    client = make("memory://a,b", clearable=True, namespace="shop", observers=[log])
    client.set("k", 1)
    client.clear()
    client.get("k")
    client.set_many({"l": 1})
    assert log.keys == [b"4:shop:k", b"4:shop:k", b"4:shop:l"]


@pytest.mark.parametrize("text", ["yes", "true", "1", "TRUE"])
def test_clearable_is_a_setting(text, tmp_path):
    """In a URL, the environment, a file and Python."""
    assert Settings.from_url(f"memory://a?clearable={text}").clearable is True
    environ = {"SHARDCACHE_URL": "memory://a", "SHARDCACHE_CLEARABLE": text}
    assert Settings.from_env(environ).clearable is True
    file = tmp_path / "shardcache.toml"
    file.write_text('nodes = ["memory://a"]\nclearable = true\n')
    assert Settings.load(file).clearable is True
    assert Settings.from_url("memory://a?clearable=no").clearable is False
    assert Settings.from_url("memory://a").clearable is False
    for client in (Client.from_settings(Settings.load(file)), Client("memory://a", clearable=True)):
        assert client.clear() is True
        client.close()


@pytest.mark.parametrize("wrong", ["maybe", 1, None, "yes"])
def test_clearable_is_true_or_false(wrong):
    """Anything else is a fault."""
    with pytest.raises(ConfigurationError, match="clearable"):
        AsyncClient("memory://a", clearable=wrong)
