"""`cached` and `get_or_set` on every kind of node, blocking and asyncio."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import os
import pickle
import signal
import threading
import time
from datetime import timedelta

import pytest

import shardcache
from shardcache import (
    AsyncClient,
    Client,
    ConfigurationError,
    KeyBuildError,
    LockPolicy,
    NodeError,
    Observer,
    RecomputeTimeoutError,
    UncacheableResultError,
)
from shardcache.clients.base import cluster_of
from shardcache.core.commands import DeleteCas, GetOrStub
from shardcache.decorators import Defaults
from shardcache.io.blocking import REFRESHERS
from shardcache.operations.invalidation.generations import LOOK_AGAIN
from shardcache.settings import Settings
from shardcache.testing.driving import MODES, DrivenClient, make_client
from shardcache.testing.waiting import eventually

BACKENDS = ["memory", "memcached", "redis", "pymemcache", "mixed"]


@pytest.fixture(params=BACKENDS)
def nodes(request):
    """Give the URLs of three nodes."""
    if request.param == "memory":
        return ["memory://a", "memory://b", "memory://c"]
    memcached = [server.url for server in request.getfixturevalue("memcached_servers")]
    if request.param == "memcached":
        return memcached
    if request.param == "pymemcache":
        return [url.replace("memcached://", "pymemcache://") for url in memcached]
    redis = [server.url for server in request.getfixturevalue("redis_servers")]
    return redis if request.param == "redis" else [memcached[0], redis[1], "memory://c"]


class Source:
    """A function that counts its calls, and its client, in either world."""

    def __init__(self, client):
        self.client = client
        self.calls = []
        self.result = "made"

    def cached(self, **terms):
        """Give the function with its values cached."""
        driven = isinstance(self.client, DrivenClient)
        return self._driven(terms) if driven else self._blocking(terms)

    def make(self, number):
        """Do what the function does."""
        self.calls.append(number)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _blocking(self, terms):
        @self.client.cached(**{"ttl": 60, "namespace": "f", **terms})
        def function(number=1):
            return self.make(number)

        return function

    def _driven(self, terms):
        @self.client.cached(**{"ttl": 60, "namespace": "f", **terms})
        async def function(number=1):
            return self.make(number)

        return Driven(function, self.client.loop)


class Driven:
    """An async cached function, each call run to its end on its client's loop."""

    def __init__(self, function, loop):
        self._function = function
        self._loop = loop

    def __call__(self, *args, **kwargs):
        """Call it as if it blocked."""
        return self._loop.run_until_complete(self._function(*args, **kwargs))

    def __getattr__(self, name):
        found = getattr(self._function, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._loop.run_until_complete(found(*args, **kwargs))


@pytest.fixture(params=MODES)
def source(request, nodes):
    """Give a source whose client is of each kind, on nodes of each kind."""
    client = make_client(request.param, nodes, timeout=5.0)
    yield Source(client)
    client.close()


@pytest.mark.parametrize("lock", [False, "local", "shard", True])
def test_the_second_call_is_a_hit(source, lock):
    """However it is written; and other arguments are another value."""
    f = source.cached(lock=lock)
    assert [f(1), f(number=1), f(), f(2)] == ["made"] * 4
    assert source.calls == [1, 2]
    info = f.cache_info()
    assert (info.hits, info.misses, info.recomputes) == (2, 2, 2)
    assert source.client.stats().protection["recomputes"] == 2


@pytest.mark.parametrize(
    "result", [None, 0, "", b"", [1, (2,)], {"k": {1, 2}}, 10**400, "text", b"bytes", 1.5, 42]
)
def test_what_comes_back_is_what_went_in(source, result):
    """Type included, with an age or without; `None` is a value."""
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


def test_a_tag_invalidated_meanwhile(nodes):
    """A value that was being made when its tag was invalidated is a miss afterwards."""
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


def test_all_values_of_a_function_after_a_pause(memcached_servers):
    """Another process that has not called for a while does not serve the old value once more."""
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


def test_errors_may_be_kept(source):
    """A type that is listed, or one below it, is raised again from the cache for a moment."""
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


def test_what_condition_refuses_is_returned_and_not_kept(source):
    """And so is what has no ttl."""
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


def test_none_may_be_left_out(source):
    """`cache_none=False` asks again each time."""
    source.result = None
    f = source.cached(cache_none=False)
    assert [f(1), f(1)] == [None, None]
    assert source.calls == [1, 1]


def test_what_cannot_be_stored_is_said_so(source):
    """The error names the key and the type; nothing fails silently."""
    source.result = object()
    f = source.cached(lock="shard")
    with pytest.raises(UncacheableResultError, match="object") as raised:
        f(1)
    assert isinstance(raised.value.__cause__, shardcache.EncodeError)


@pytest.mark.parametrize("kind", ["memcached", "redis"])
@pytest.mark.parametrize("lock", [False, "shard", True])
def test_garbage_is_a_miss(request, kind, lock):
    """What cannot be read is made anew, counted, and replaced."""
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


def test_stale_values_are_served_once_more(source):
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


def test_a_node_that_fails_computes(make_memcached):
    """Cache trouble is no trouble of the caller's; it is counted, or raised if asked for."""
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


async def blocked(end):
    """Keep the thread that does it."""
    end.wait(30)


embedded = Client("memory://a,b,c")


@embedded.cached(ttl=60)
def tripled(number):
    """Give what a worker of a pool may be asked for."""
    return 3 * number


class Shop:
    """A class with cached functions of each kind, all found by their names."""

    def __init__(self, number):
        self.number = number

    def __cache_key__(self):
        return self.number

    @embedded.cached(ttl=60)
    def address(self):
        """Give what differs between shops."""
        return f"{self.number} Main Street"

    @embedded.cached(ttl=60)
    @classmethod
    def kind(cls):
        """Give what differs between classes."""
        return cls.__name__

    @embedded.cached(ttl=60)
    @staticmethod
    def tax():
        """Give what is the same for all."""
        return 0.19


class Users:
    """A class that notes which of its functions were called."""

    calls = []  # noqa: RUF012 - of all of them

    @embedded.cached(ttl=60)
    @classmethod
    def of_class(cls, number):
        """Give the number."""
        cls.calls.append(cls.__name__)
        return number

    @embedded.cached(ttl=60)
    @staticmethod
    def static(number):
        """Give the number."""
        Users.calls.append("static")
        return number


class Admins(Users):
    """A class of its own, with values of its own."""


class TestFunctions:
    """What kinds of functions can be cached."""

    client = embedded

    def test_methods_need_a_key_for_self(self):
        """A `__cache_key__`, or to leave it out."""

        class Users:
            def __init__(self, number):
                self.number = number

            @self.client.cached(ttl=60, namespace="Users.keyless")
            def keyless(self):
                return self.number

            @self.client.cached(ttl=60, ignore="self", namespace="Users.shared")
            def shared(self):
                return self.number

        class Keyed(Users):
            def __cache_key__(self):
                return self.number

        with pytest.raises(KeyBuildError, match="argument 'self', a value of type"):
            Users(1).keyless()
        assert (Users(1).shared(), Users(2).shared()) == (1, 1)
        assert (Keyed(1).keyless(), Keyed(2).keyless(), Keyed(1).keyless()) == (1, 2, 1)
        assert Keyed(2).keyless.get() == 2
        assert Keyed(2).keyless.invalidate() is True
        assert Users.shared.cache_info().hits == 1

    def test_class_methods_and_static_methods(self):
        """`cached` goes outside; a class has values of its own."""
        Users.calls.clear()
        assert [Users.of_class(1), Users().of_class(1), Admins.of_class(1)] == [1, 1, 1]
        assert [Users.static(1), Users().static(1)] == [1, 1]
        assert Users.calls == ["Users", "Admins", "static"]

    def test_what_it_wraps_shows(self):
        """Name, doc and module are the function's; and it says what it is."""

        @self.client.cached(ttl=60, namespace="documented")
        def documented(a: int) -> int:
            """Say something."""
            return a

        assert documented.__name__ == "documented"
        assert documented.__doc__ == "Say something."
        assert str(inspect.signature(documented)) == "(a: 'int') -> 'int'"
        assert documented.__wrapped__(3) == 3
        assert repr(documented).startswith("<CachedFunction ")

    def test_what_cannot_be_cached_is_refused_at_decoration(self):
        """Generators, what is no function, and functions of the other world."""

        async def asynchronous():
            return 1

        def generator():
            yield 1

        async def asynchronous_generator():
            yield 1

        decorator = self.client.cached(ttl=60)
        for function, message in [
            (asynchronous, "needs an AsyncClient"),
            (generator, "generator"),
            (asynchronous_generator, "generator"),
            (42, "is no function"),
        ]:
            with pytest.raises(ConfigurationError, match=message):
                decorator(function)
        with pytest.raises(ConfigurationError, match="needs a blocking Client"):
            AsyncClient("memory://a").cached(ttl=60)(lambda: 1)

    def test_it_is_pickled_and_copied_as_functions_are(self):
        """By name; bound, with its instance, as what is sent to a pool of processes."""
        for function in (tripled, Shop.address, Shop.tax):
            assert pickle.loads(pickle.dumps(function)) is function
            assert copy.copy(function) is function
            assert copy.deepcopy(function) is function
        assert pickle.loads(pickle.dumps(Shop(7).address))() == "7 Main Street"
        assert pickle.loads(pickle.dumps(Shop.kind))() == "Shop"

        @embedded.cached(ttl=60, namespace="local")
        def local():
            return 1

        with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
            pickle.dumps(local)

    def test_one_may_be_cached_twice(self):
        """A cached function under another, as in front of a remote cache, with a wrapper between."""
        near, far = Client("memory://near"), Client("memory://far")
        between = []

        @far.cached(ttl=300, namespace="far")
        def source():
            return "made"

        @near.cached(ttl=5, namespace="near")
        @functools.wraps(source)
        def noted():
            between.append(1)
            return source()

        assert (noted(), noted()) == ("made", "made")
        assert (noted.policy.ttl, source.policy.ttl, between) == (5, 300, [1])
        assert (noted.cache_info().hits, source.cache_info().misses) == (1, 1)
        assert near.get(noted.key_for()) == far.get(source.key_for()) == "made"
        twice = near.cached(ttl=7, namespace="twice")(source)
        assert (twice(), twice.policy.ttl, twice.cache_info().misses) == ("made", 7, 1)

    def test_a_bound_one_wants_no_self(self):
        """Its signature is that of the call."""
        assert str(inspect.signature(Shop(1).address)) == "()"
        assert Shop(1).address.__wrapped__() == "1 Main Street"
        assert str(inspect.signature(Shop.kind)) == "()"

    def test_no_two_functions_share_their_values_unnoticed(self):
        """Neither the methods of two objects nor two lambdas."""
        decorator = Client("memory://a").cached(ttl=60, namespace="n")
        with pytest.raises(ConfigurationError, match="bound to one object"):
            decorator(Shop(1).address.__wrapped__)
        one, other = (lambda: 1), (lambda: 2)
        assert decorator(one)() == 1
        with pytest.raises(ConfigurationError, match="with other code"):
            decorator(other)

    @pytest.mark.parametrize(
        ("terms", "fault"),
        [
            ({"key": 5}, "key must be a template or a function"),
            ({"key": b"x"}, "key must be a template or a function"),
            ({"tags": None}, "tags must be strings"),
            ({"ignore": [1]}, "ignore must be strings"),
            ({"cache_errors": 5}, "cache_errors must be types"),
            ({"cache_errors": None}, "cache_errors must be types"),
        ],
    )
    def test_what_is_of_the_wrong_type_is_named(self, terms, fault):
        """At decoration, not at the first call."""
        with pytest.raises(ConfigurationError, match=fault):
            self.client.cached(ttl=60, **terms)(lambda: 1)

    @pytest.mark.parametrize(
        ("function", "fault"),
        [
            (max, "no signature"),
            (functools.partialmethod(max), "partialmethod is no function"),
            (functools.cached_property(max), "cached_property is no function"),
            ("text", r"'text' is no function; write @client.cached\(ttl=…\) above one"),
        ],
    )
    def test_what_is_no_function_is_named(self, function, fault):
        """The parentheses of the decorator were there, and are not asked for."""
        with pytest.raises(ConfigurationError, match=fault):
            self.client.cached(ttl=60)(function)

    def test_lengths_of_time_may_be_timedeltas(self):
        """Within the terms of the lock as well."""
        policy = LockPolicy(ttl=timedelta(seconds=3), max_hold=timedelta(minutes=1))
        assert (policy.ttl, policy.max_hold) == (3.0, 60.0)
        assert self.client.cached(ttl=60, lock=policy, namespace="t")(lambda: 1)() == 1

    def test_bad_terms_are_refused_all_at_once(self):
        """Each fault is named, with what is known."""
        with pytest.raises(ConfigurationError) as raised:
            self.client.cached(
                ttl=-1, lock="everything", jitter=1.5, on_timeout="explode", cache_errors=[int]
            )
        assert len(raised.value.faults) == 5
        with pytest.raises(TypeError, match="lokc"):
            self.client.cached(ttl=60, lokc=True)

    def test_frameworks_see_what_is_to_be_awaited(self):
        """An async cached function is a coroutine function, also as a method."""

        class Users:
            @AsyncClient("memory://a").cached(ttl=60, ignore="self", namespace="Users.fetch")
            async def fetch(self):
                return 1

        if hasattr(inspect, "markcoroutinefunction"):
            assert inspect.iscoroutinefunction(Users.fetch)
            assert inspect.iscoroutinefunction(Users().fetch)
        assert asyncio.run(Users().fetch()) == 1


class TestTogether:
    """Many callers of one process."""

    def test_threads(self, memcached_servers):
        """Of fifty threads one calls, and each has a copy of its own."""
        calls = []
        with Client([server.url for server in memcached_servers], timeout=5.0) as client:

            @client.cached(ttl=60, lock=True, namespace="f")
            def f():
                calls.append(1)
                eventually(lambda: f.cache_info().misses == 50, within=5.0)
                return {"list": []}

            results = [None] * 50

            def run(place):
                results[place] = f()

            threads = [threading.Thread(target=run, args=(place,)) for place in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert results == [{"list": []}] * 50
            assert len({id(result["list"]) for result in results}) == 50
            assert len(calls) == 1
            # One that was slow to join found the value on the node, and counts as neither.
            assert (f.cache_info().hits, f.cache_info().misses) == (0, 50)
            assert 0 < f.cache_info().coalesced <= 49

    async def test_tasks(self, redis_servers):
        """Of ten thousand tasks one calls, and the node sees tens of reads at most."""
        calls = []
        urls = [server.url for server in redis_servers]
        async with AsyncClient(urls, timeout=10.0) as client:

            @client.cached(ttl=60, lock=True, wait=60.0, namespace="f")
            async def f():
                calls.append(1)
                await asyncio.sleep(0.1)
                return [1]

            results = await asyncio.gather(*(f() for _ in range(10_000)))
            assert results == [[1]] * 10_000
            assert len(calls) == 1
            stats = await client.stats()
            assert sum(figures.client["calls"] for figures in stats.values()) < 40

    async def test_a_shared_error_has_a_trace_of_its_own(self):
        """Every caller gets the error; only the one who called has the original."""
        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                await asyncio.sleep(0.05)
                raise ValueError("none")

            errors = await asyncio.gather(*(f() for _ in range(100)), return_exceptions=True)
        assert {type(error) for error in errors} == {ValueError}
        assert {error.args for error in errors} == {("none",)}
        assert len({id(error) for error in errors}) == 100

    def test_recursion_calls_through(self):
        """A function that calls itself with the same arguments is not stuck."""
        with Client("memory://a,b,c") as client:
            depth = []

            @client.cached(ttl=60, lock=True, wait=5.0, namespace="f")
            def f():
                depth.append(1)
                return "bottom" if len(depth) == 2 else f()

            began = time.monotonic()
            assert f() == "bottom"
            assert time.monotonic() - began < 2.0

    def test_events(self):
        """Observers hear of calls, and of callers who did not have to."""
        heard = []

        class Listener(Observer):
            def compute_finished(self, event):
                heard.append(("compute", event.stored, event.error))

            def stampede_prevented(self, event):
                heard.append((event.how, event.seconds > 0, None))

        with Client("memory://a,b,c", observers=[Listener()]) as client:

            @client.cached(ttl=60, namespace="f")
            def f():
                time.sleep(0.1)
                return 1

            threads = [threading.Thread(target=f) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert heard[0] == ("compute", True, None)
        assert heard[1:] == [("joined", True, None)] * 2


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

    def test_without_nodes_this_process_caches_and_says_so(self, monkeypatch, caplog):
        """It is a decorator's default, and a warning of it once for each client."""
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

    def test_both_worlds(self):
        """One decorator takes both kinds of functions; one default serves every loop."""
        shardcache.configure(["memory://a", "memory://b"], namespace="n")
        calls = []

        @shardcache.cached(ttl=60, lock="shard", namespace="both")
        async def f(number):
            calls.append(number)
            return number

        assert [asyncio.run(f(1)), asyncio.run(f(1)), asyncio.run(f(2))] == [1, 1, 2]
        assert calls == [1, 2]

    def test_configured_anew(self):
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
        """The default client is one."""
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


class TestTrouble:
    """What must not happen, whatever the function or its callers do."""

    async def test_a_function_that_is_cancelled_from_within(self):
        """Its caller is told so, once; nobody calls it again and again."""
        calls = []
        async with AsyncClient("memory://a,b,c") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                calls.append(1)
                other = asyncio.get_running_loop().create_future()
                other.cancel()
                await other

            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await f()
        assert len(calls) == 1

    async def test_an_error_that_cannot_be_copied_has_a_trace_for_each(self):
        """Its `__init__` wants more than its arguments, as those of some SDKs do."""

        class RefusedError(Exception):
            def __init__(self, *, code):
                super().__init__(f"refused with {code}")
                self.code = code

        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, namespace="f")
            async def f():
                await asyncio.sleep(0.05)
                raise RefusedError(code=7)

            errors = await asyncio.gather(*(f() for _ in range(5)), return_exceptions=True)
        assert [(type(each), str(each), each.code) for each in errors] == [
            (RefusedError, "refused with 7", 7)
        ] * 5
        assert len({id(each) for each in errors}) == 5
        assert sum(each.__traceback__.tb_next is not None for each in errors) == 5

    async def test_a_caller_waits_for_its_own_time(self):
        """That the first one has waited in vain does not end the waiting of those who joined it."""
        async with AsyncClient("memory://a") as client:

            @client.cached(ttl=60, lock="shard", wait=0.5, on_timeout="raise", namespace="n")
            async def f():
                return "made by the second"

            name = await f.key_for()
            cluster = cluster_of(client)
            routed, member, _ = cluster.route(name)
            met = await cluster.ask(member, GetOrStub(routed, b"m" * 16, 30))
            first = asyncio.create_task(f())
            await asyncio.sleep(0.3)
            second = asyncio.create_task(f())
            with pytest.raises(RecomputeTimeoutError):
                await first
            assert not second.done()
            await cluster.ask(member, DeleteCas(routed, met.token))
            assert await second == "made by the second"

    async def test_closing_undoes_what_is_under_way(self, redis_servers):
        """No task is left behind, and no stub for others to wait for."""
        urls = [server.url for server in redis_servers]
        before = asyncio.all_tasks()
        async with AsyncClient(urls) as client, AsyncClient(urls) as other:
            began = asyncio.Event()

            @client.cached(ttl=60, lock=True, namespace="n")
            async def f():
                began.set()
                await asyncio.sleep(30)

            key = await f.key_for()
            call = asyncio.create_task(f())
            await began.wait()
            assert await other.add(key, 1) is False  # a stub is there
            await client.aclose()
            left = [task.get_name() for task in asyncio.all_tasks() - before]
            assert not [name for name in left if name.startswith("shardcache")]
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await other.add(key, 1) is True
            assert await other.lock(key).try_acquire() is not None
        assert asyncio.all_tasks() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has none")
    @pytest.mark.parametrize("lock", ["shard", True])
    def test_a_child_gives_up_nothing_of_its_parent_s(self, redis_servers, lock):
        """A function may fork, and the child end in the midst of it."""
        urls = [server.url for server in redis_servers]
        with Client(urls, timeout=5.0) as client:

            @client.cached(ttl=60, lock=lock, namespace="n")
            def f():
                child = os.fork()
                if not child:
                    raise SystemExit(7)
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

            parent = os.getpid()
            try:
                status = f()
            finally:
                if os.getpid() != parent:
                    os._exit(7)
            assert status == 7
            assert f.get() == 7
            assert (f.cache_info().rejected, f.cache_info().locks_lost) == (0, 0)

    def test_what_is_too_large_leaves_no_older_value(self, memcached_servers):
        """A value that the node does not take is not the one of before, either."""
        with Client([server.url for server in memcached_servers], codec="raw") as client:
            size = [1]

            @client.cached(ttl=60, namespace="f")
            def f():
                return b"x" * size[0]

            f()
            size[0] = 2_000_000
            assert len(f.refresh()) == 2_000_000
            assert f.get() is None
            assert f.set(b"small") is True
            assert f.set(b"x" * 2_000_000) is False
            assert f.get() is None

    @pytest.mark.parametrize("way", ["set", "touch", "cas", "flush_all"])
    def test_other_ways_to_remove_a_value_void_what_is_being_made(self, way):
        """Who calls after them joins nobody who began before."""
        with Client("memory://a") as client:
            version, began, end = [1], threading.Event(), threading.Event()

            @client.cached(ttl=60, namespace="n", wait=1, on_timeout="raise")
            def f():
                made = version[0]
                if made == 1:
                    began.set()
                    end.wait(30)
                return made

            key = f.key_for()
            thread = threading.Thread(target=f)
            thread.start()
            began.wait(30)
            version[0] = 2
            ways = {
                "set": lambda: client.set(key, 0, ttl=0),
                "touch": lambda: client.touch(key, 0),
                "cas": lambda: client.set(key, 0) and client.cas(key, 0, client.gets(key)[1], 0),
                "flush_all": client.flush_all,
            }
            assert ways[way]() is not None
            assert f() == 2
            end.set()
            thread.join(30)
            assert f() == 2

    def test_others_notice_while_all_refreshers_are_busy(self):
        """What `invalidate_all` did is looked for by a call when nobody else is free to."""
        with Client("memory://a,b,c") as client:
            f = client.cached(ttl=60, namespace="n")(lambda: "made")
            f()
            end = threading.Event()
            io = cluster_of(client).io
            offers = [io.try_spawn(lambda: blocked(end), "test") for _ in range(REFRESHERS)]
            assert all(offers)
            other = client.cached(ttl=60, namespace="n")(f.__wrapped__)
            other.invalidate_all()
            eventually(lambda: f() and f.cache_info().misses == 2, within=10)
            end.set()

    def test_the_default_clients_take_locks_over_enough_nodes(self, caplog):
        """Too few are told in the log, once, when the client is made."""
        defaults = Defaults()
        defaults.take_locks()
        defaults.configure(Settings.from_url("memory://a"))
        assert defaults.client() is defaults.client()
        assert sum("three or more" in record.message for record in caplog.records) == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has none")
    def test_a_fork_while_the_default_client_is_made(self):
        """The child makes its own; the parent's lock is not its concern."""
        defaults = Defaults()
        defaults.configure(Settings.from_url("memory://a"))
        with defaults._making.own():
            child = os.fork()
            if not child:
                signal.alarm(10)
                os._exit(0 if defaults.client().set("k", 1) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.parametrize("lock", [False, "shard", True])
    def test_an_old_value_outlives_nested_calls(self, lock):
        """A call from within another cached function throws no last resort away."""
        with Client("memory://a,b,c") as client:
            down = []

            @client.cached(
                ttl=0.05,
                jitter=0.0,
                stale_if_error=600,
                error_backoff=30,
                lock=lock,
                namespace="source",
            )
            def source():
                if down:
                    raise ValueError("the source is down")
                return "old"

            @client.cached(ttl=0.01, jitter=0.0, condition=lambda _: False, namespace="page")
            def page():
                return source()

            assert page() == "old"
            down.append(1)
            time.sleep(0.1)
            assert [page() for _ in range(5)] == ["old"] * 5

    def test_first_callers_know_the_generation(self, memcached_servers):
        """None of many who call at once, in a new process, is served what was invalidated."""
        urls = [server.url for server in memcached_servers]
        version = [1]
        with Client(urls, timeout=5.0) as client:
            f = client.cached(ttl=60, namespace="n")(lambda: version[0])
            assert f() == 1
            f.invalidate_all()
            version[0] = 2
            assert f() == 2
        for _ in range(5):
            with Client(urls, timeout=5.0) as fresh:
                g = fresh.cached(ttl=60, namespace="n")(lambda: version[0])
                start = threading.Barrier(8)
                seen = []

                def call(g=g, start=start, seen=seen):
                    start.wait()
                    seen.append(g())

                threads = [threading.Thread(target=call) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(30)
                assert seen == [2] * 8

    @pytest.mark.parametrize("lock", [False, "shard"])
    def test_what_was_given_up_twice_is_not_the_same(self, redis_servers, lock):
        """A late maker does not store over an invalidation because a mark looks like another."""
        urls = [server.url for server in redis_servers]
        with Client(urls, timeout=5.0) as client:
            fails = [True]

            @client.cached(ttl=60, lock=lock, namespace="n")
            def failing():
                raise ValueError("none")

            @client.cached(ttl=60, lock=lock, namespace="m", coalesce=False)
            def late():
                if fails:
                    fails.clear()
                    client.delete(failing.key_for())
                    with pytest.raises(ValueError, match="none"):
                        failing()
                return "old"

            with pytest.raises(ValueError, match="none"):
                failing()
            client.get_or_set(failing.key_for(), late.bypass, ttl=60, lock=lock)
            assert client.get(failing.key_for()) is None

    @pytest.mark.parametrize("how", ["delete", "delete_many", "invalidate", "invalidate_tag"])
    def test_what_is_being_made_here_is_void_then(self, how):
        """Whoever asks after an invalidation of any kind does not join what was begun before."""
        with Client("memory://a,b,c") as client:
            begun, go, calls, results = threading.Event(), threading.Event(), [], []

            @client.cached(ttl=60, tags=["t"], wait=60.0, namespace="f")
            def f():
                calls.append(1)
                if len(calls) > 1:
                    return "new"
                begun.set()
                go.wait(3)
                return "old"

            first = threading.Thread(target=lambda: results.append(f()))
            first.start()
            begun.wait(30)
            voids = {
                "delete": lambda: client.delete(f.key_for()),
                "delete_many": lambda: client.delete_many([f.key_for()]),
                "invalidate": f.invalidate,
                "invalidate_tag": lambda: client.invalidate_tag("t"),
            }
            voids[how]()
            assert f() == "new"
            go.set()
            first.join(30)
            assert results == ["old"]
            assert f.get() == "new"

    @pytest.mark.parametrize("on_timeout", ["raise", "compute"])
    def test_who_joined_in_vain(self, on_timeout):
        """The policy says what one has whose own process was too slow: the error, or its own call."""
        with Client("memory://a,b,c") as client:
            begun, go, calls = threading.Event(), threading.Event(), []

            @client.cached(ttl=60, wait=0.05, on_timeout=on_timeout, namespace="f")
            def f():
                calls.append(1)
                if len(calls) == 1:
                    begun.set()
                    go.wait(30)
                return len(calls)

            first = threading.Thread(target=f)
            first.start()
            begun.wait(30)
            if on_timeout == "raise":
                with pytest.raises(RecomputeTimeoutError):
                    f()
            else:
                assert f() == 2
            go.set()
            first.join(30)
            assert len(calls) == (1 if on_timeout == "raise" else 2)

    def test_a_user_s_lock_is_not_that_of_a_value(self):
        """A block that holds a lock may compute a value of the same name."""
        with Client("memory://a,b,c") as client:
            began = time.monotonic()
            with client.lock("report"):
                assert client.get_or_set("report", lambda: 1, ttl=60, lock=True) == 1
            assert time.monotonic() - began < 3.0

    def test_a_tag_s_node_that_is_down_leaves_no_stub(self, make_memcached):
        """The value is given and not stored, it is counted, and nobody waits for it."""
        well, down = make_memcached(), make_memcached()
        with Client([well.url, down.url], timeout=0.2) as client:
            tag = next(f"t{n}" for n in range(100) if client.node_for(f"t{n}").url == down.url)
            down.kill()

            @client.cached(ttl=60, lock="shard", tags=[tag], key="{number}")
            def f(number):
                return number

            here = next(n for n in range(100) if client.node_for(f"{__name__}:{n}").url == well.url)
            began = time.monotonic()
            assert [f(here), f(here)] == [here, here]
            assert time.monotonic() - began < 3.0
            assert f.cache_info().cache_errors >= 2

    async def test_a_call_cancelled_at_its_begin_leaves_no_stub(self, make_redis):
        """Whoever comes next does not wait for somebody who is gone."""
        server = make_redis()
        async with AsyncClient(server.url, timeout=5.0) as client:

            @client.cached(ttl=60, lock="shard", namespace="f")
            async def f(number):
                return number

            await f(-1)
            for number in range(40):
                task = asyncio.create_task(f(number))
                for _ in range(number % 10):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                async with asyncio.timeout(3.0):
                    assert await f(number) == number

    async def test_nothing_goes_on_behind_a_closed_client(self):
        """What was being made is stopped with the client."""
        client = AsyncClient("memory://a")
        begun, ended = asyncio.Event(), []

        @client.cached(ttl=60, namespace="f")
        async def f():
            begun.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(1)

        task = asyncio.create_task(f())
        await begun.wait()
        await client.aclose()
        await asyncio.gather(task, return_exceptions=True)
        assert ended == [1]

    def test_an_exception_with_a_constructor_of_its_own(self):
        """One that cannot be made again is not kept, and is no other error."""

        class OddError(Exception):
            def __new__(cls, *, code):
                made = super().__new__(cls, code)
                made.code = code
                return made

            def __init__(self, *, code):
                pass

        with Client("memory://a") as client:

            @client.cached(ttl=60, cache_errors=OddError, error_ttl=30, namespace="f")
            def f():
                raise OddError(code=7)

            for _ in range(3):
                with pytest.raises(OddError):
                    f()
