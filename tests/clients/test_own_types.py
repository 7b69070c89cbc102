"""Results of own types, and codecs of functions, through both clients on every kind of node."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from typing import Annotated

import pydantic
import pytest
from markupsafe import Markup

import shardcache
from clients.sources import Driven
from core.own_types.samples import MODEL, NESTED, Inner, Kind, Model, Nested, Point, Struct
from shardcache import (
    AsyncClient,
    Client,
    ConfigurationError,
    DecodeError,
    EncodeError,
    UncacheableResultError,
    decorators,
)
from shardcache.clients.result_payloads import MAX_DIRECT
from shardcache.core.codecs import Json
from shardcache.testing.driving import MODES, DrivenClient, make_client

SECRET = "at least sixteen bytes"


class Reversed:
    """A value format of another author: text that is stored backwards."""

    name = "reversed"

    def encode(self, _, value):
        """Return the payload of JSON."""
        return 64 << 16, json.dumps(value).encode()[::-1]

    def decode(self, _, payload):
        """Return the value of JSON."""
        if payload[0] != 64 << 16:
            raise DecodeError("not reversed")
        return json.loads(payload[1][::-1])


@dataclass
class User:
    """What an application returns."""

    name: str
    friends: list[User]


def users() -> list[User]:
    """Return what an application returns."""
    return [User("Ada", [User("Grace", [])])]


# What is stored of it.
STORED = [{"name": "Ada", "friends": [{"name": "Grace", "friends": []}]}]


def cache(client, function, **options):
    """Return a function cached by a client of either kind, to be called as if it blocked."""
    decorator = client.cached(**{"ttl": 60, "namespace": "f", **options})
    if not isinstance(client, DrivenClient):
        return decorator(function)

    @functools.wraps(function)
    async def awaited(*args):
        return function(*args)

    return Driven(decorator(awaited), client.loop)


@pytest.fixture(params=MODES)
def mode(request):
    """Return the kind of client."""
    return request.param


@pytest.fixture
def client(mode):
    """Return a client of memory nodes."""
    made = make_client(mode, "memory://a,b")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "codec",
    [None, "json", "pickle", Json(), Reversed()],
    ids=["the client's", "json", "pickle", "a codec", "a value format"],
)
@pytest.mark.parametrize(
    ("kind", "value"),
    [(list[User], users()), (Nested, NESTED), (Model, MODEL), (list[Kind], [Kind.OPEN])],
    ids=["dataclasses", "a dataclass", "a model", "enums"],
)
def test_own_types_come_back_in_another_process(mode, all_urls, codec, kind, value):
    """On every kind of node, by every codec: equal, and of the same types."""
    calls = []
    results = []

    def made():
        calls.append(1)
        return value

    for _ in range(2):
        client = make_client(mode, all_urls, timeout=5.0, secret=SECRET)
        cached = cache(client, made, returns=kind, codec=codec, lock="shard")
        results += [cached(), cached(), cached.get()]
        client.close()
    assert results == [value] * 6
    assert {type(each) for each in results} == {type(value)}
    assert len(calls) == (2 if all_urls == "memory://a,b,c" else 1)


def test_an_annotation_declares_the_type(client):
    """Of a function, and of the factory of `get_or_set`."""
    cached = cache(client, users, returns=True)
    assert cached() == cached() == users()
    assert cached.cache_info().hits == 1
    for _ in range(2):
        assert client.get_or_set("k", users, ttl=60, returns=True) == users()
    assert client.get("k") == STORED


def test_methods_declare_a_type():
    """Bound to an instance or a class, in both clients."""
    client, twin = Client("memory://a"), AsyncClient("memory://a")

    class Users:
        """A class of an application."""

        @client.cached(ttl=60, ignore="self", namespace="one", returns=True)
        def one(self) -> User:
            """Return a user."""
            return users()[0]

        @client.cached(ttl=60, ignore="cls", namespace="class", returns=True)
        @classmethod
        def of_class(cls) -> User:
            """Return a user."""
            return users()[0]

        @twin.cached(ttl=60, ignore="self", namespace="twin", returns=True)
        async def awaited(self) -> User:
            """Return a user."""
            return users()[0]

    assert Users().one() == Users().one() == users()[0]
    assert asyncio.run(Users().awaited()) == asyncio.run(Users().awaited()) == users()[0]
    assert Users.__dict__["one"].cache_info().hits == 1


def test_set_refresh_and_get_take_the_type(client):
    """A value that is set by hand is checked as results are."""
    cached = cache(client, users, returns=True)
    assert cached.set([User("Eve", [])]) is True
    assert cached() == cached.get() == cached.entry().value == [User("Eve", [])]
    assert cached.refresh() == users() == cached()
    with pytest.raises(EncodeError, match="Expected `object`, got `int`"):
        cached.set([1])


def test_a_function_has_its_own_codec(client):
    """The client's own codec cannot read what it stores."""
    cached = cache(client, lambda: {"a": 1}, codec="json", namespace="j")
    assert cached() == cached() == {"a": 1}
    assert cached.cache_info().hits == 1
    assert client.get(cached.key_for()) is None
    assert client.view(codec="json").get(cached.key_for()) == {"a": 1}
    with pytest.raises(UncacheableResultError, match="codec 'json' cannot store tuple"):
        client.get_or_set("k", lambda: (1,), ttl=60, codec="json")
    assert client.get_or_set("k", lambda: (1,), ttl=60) == (1,)


def test_a_codec_that_runs_code_needs_a_secret(mode, client):
    """It is told when decorating."""
    with pytest.raises(ConfigurationError, match="'pickle' needs a secret"):
        client.cached(ttl=60, codec="pickle")
    with pytest.raises(ConfigurationError, match="'pickle' needs a secret"):
        client.get_or_set("k", users, ttl=60, codec="pickle")
    signed = make_client(mode, "memory://a", secret=SECRET)
    for _ in range(2):
        assert signed.get_or_set("k", lambda: {1j}, ttl=60, codec="pickle") == {1j}
    signed.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codec": "yaml"}, r"no such codec \(known: .*msgpack"),
        ({"codec": 5}, "codec must be the name of a codec"),
        ({"returns": range}, "range is not a type that can be read back"),
        ({"returns": True}, "there is no return annotation"),
    ],
)
def test_bad_options_are_refused_when_decorating(client, options, words):
    """The name of the function stays free for a good one."""
    with pytest.raises(ConfigurationError, match=words):
        cache(client, lambda: 1, namespace="n", **options)
    with pytest.raises(ConfigurationError, match=words):
        client.get_or_set("k", lambda: 1, ttl=60, **options)
    assert cache(client, lambda: 2, namespace="n")() == 2


def test_the_error_names_the_function(client):
    """There may be hundreds of them."""
    with pytest.raises(ConfigurationError, match=r"cached .*test_own_types:users: returns: range"):
        cache(client, users, returns=range)


def test_a_client_without_types_has_no_other_codec(mode):
    """Bytes of the codec `raw` have no header on Redis."""
    client = make_client(mode, "memory://a", codec="raw")
    with pytest.raises(ConfigurationError, match="cached: codec: a client with the codec 'raw'"):
        client.cached(ttl=60, codec="json")
    with pytest.raises(ConfigurationError, match="view: codec: a client with the codec 'raw'"):
        client.view(codec="json")
    assert cache(client, lambda: b"x", codec="raw")() == b"x"
    client.close()


def test_what_get_or_set_needs_is_made_once(client):
    """For each pair of codec and type; the number of those that are kept is bounded."""
    known = getattr(client, "twin", client)._result_payloads._direct
    for _ in range(3):
        client.get_or_set("k", users, ttl=60, returns=list[User])
        client.get_or_set("k", users, ttl=60, returns=True)
    assert len(known) == 1
    unhashable = Annotated[list[Point], pydantic.Field(max_length=3), []]
    assert client.get_or_set("p", lambda: [Point(1)], ttl=60, returns=unhashable) == [Point(1)]
    assert len(known) == 1
    for number in range(MAX_DIRECT):
        client.get_or_set("n", lambda: 1, ttl=60, returns=Annotated[int, number])
    assert len(known) <= MAX_DIRECT
    view = client.view(codec="json")
    assert view.get_or_set("v", users, ttl=60, returns=True) == users()
    assert view.get("v") == STORED
    assert client.get("v") is None


def test_an_old_value_is_a_miss_and_is_logged_once(client, caplog):
    """A deploy with another type of the same name; no value is in the log."""
    cached = cache(client, users, returns=True)
    for _ in range(3):
        client.set(cached.key_for(), [{"name": "hunter2"}])
        assert cached() == users()
    info = cached.cache_info()
    assert (info.misses, info.hits, info.recomputes) == (3, 0, 3)
    assert sum(node.client["decode_failures"] for node in client.stats().values()) >= 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "test_own_types:users failed: not a valid list[" in record.getMessage()
    assert "missing required field `friends` - at `$[0]`" in record.getMessage()
    assert "hunter2" not in caplog.text


def test_a_result_that_cannot_be_stored_is_returned_and_logged_once(client, caplog):
    """`get_or_set` raises, unless it is told to return it."""
    result = object()
    cached = cache(client, lambda: result, namespace="u")
    assert [cached(), cached()] == [result] * 2
    assert cached.cache_info().uncached == 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "returned uncached" in record.getMessage()
    with pytest.raises(UncacheableResultError):
        client.get_or_set("k", object, ttl=60)
    assert client.get_or_set("k", lambda: result, ttl=60, on_uncacheable="return") is result
    strict = cache(client, lambda: result, namespace="s", on_uncacheable="raise")
    with pytest.raises(UncacheableResultError, match="cannot store object"):
        strict()
    with pytest.raises(EncodeError):
        client.set("k", result)
    with pytest.raises(ConfigurationError, match="on_uncacheable must be 'return' or 'raise'"):
        client.cached(ttl=60, on_uncacheable="ignore")


def test_text_that_is_marked_safe_stays_so(client):
    """Without a declared type, with the default codec."""
    client.set("k", {"html": Markup("<b>")})
    assert type(client.get("k")["html"]) is Markup
    with pytest.raises(EncodeError, match=r"store value\.value"):
        client.set("k", Kind.OPEN)


class TestDefaultClient:
    """`shardcache.cached`, whose client is created at the first call."""

    def test_it_takes_types_and_codecs(self):
        """Of functions and of coroutine functions."""
        shardcache.configure("memory://a,b")

        @shardcache.cached(ttl=60, returns=True, codec="json", namespace="own types")
        def blocking() -> list[Struct]:
            return [Struct(1, Kind.OPEN)]

        @shardcache.cached(ttl=60, returns=Inner, namespace="awaited own types")
        async def awaited():
            return MODEL.inner

        assert blocking() == blocking() == [Struct(1, Kind.OPEN)]
        assert asyncio.run(awaited()) == MODEL.inner

    def test_another_client_has_another_stored_form(self):
        """Results are stored by the codec of the client that is there."""
        cached = shardcache.cached(ttl=60, returns=True, namespace="another client")(users)
        for codec in ("msgpack", "json"):
            shardcache.configure("memory://a", codec=codec)
            assert cached() == users()
            assert decorators._defaults.client().get(cached.key_for()) == STORED

    def test_a_codec_is_looked_up_at_the_first_call(self):
        """Plugins are not loaded before; what is no codec at all is refused at once."""
        with pytest.raises(ConfigurationError, match="codec must be the name"):
            shardcache.cached(ttl=60, codec=5)
        cached = shardcache.cached(ttl=60, codec="yaml", namespace="no codec")(users)
        with pytest.raises(ConfigurationError, match="no such codec"):
            cached()
