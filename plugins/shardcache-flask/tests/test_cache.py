"""A cachelib cache keeps cachelib's contract, and says what is wrong with its options."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from cachelib import BaseCache
from shardcache_flask import ShardCache
from shardcache_flask.serializers import JSON

from shardcache import (
    AsyncClient,
    Client,
    ConfigurationError,
    EncodeError,
    InvalidKeyError,
    NotACounterError,
)
from shardcache.settings import releases

URL = "memory://a,b,c"


class Thing:
    """An object that only pickle takes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.name == other.name

    __hash__ = None


@pytest.fixture
def cache() -> Iterator[ShardCache]:
    """Return a cache without a secret."""
    cache = ShardCache(URL)
    yield cache
    cache.close()


def test_it_is_a_cache_of_cachelib(cache: ShardCache):
    """Every public method is its own, none the default of the base class, except `get_dict`."""
    assert isinstance(cache, BaseCache)
    methods = {name for name, _ in inspect.getmembers(BaseCache, inspect.isfunction)}
    inherited = {name for name in methods if getattr(ShardCache, name) is getattr(BaseCache, name)}
    assert {name for name in inherited if not name.startswith("_")} == {"get_dict"}


def test_none_is_a_value_that_has_finds(cache: ShardCache):
    """`get` cannot tell it from a miss."""
    cache.set("none", None)
    assert cache.get("none") is cache.get("missing") is None
    assert cache.has("none")
    assert not cache.has("missing")


def test_many_keys_keep_their_order(cache: ShardCache):
    """A key may come twice."""
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many("b", "x", "a", "b") == [2, None, 1, 2]
    assert cache.get_dict("b", "x") == {"b": 2, "x": None}
    assert cache.delete_many("x", "a") == ["x", "a"]
    assert cache.get_many("a", "b") == [None, 2]


def test_pairs_are_no_mapping():
    """The error names the call."""
    with pytest.raises(
        TypeError, match=r"^set_many: must be a mapping from key to value, not list$"
    ):
        ShardCache("memory://a").set_many([("a", 1)])


@pytest.mark.parametrize(
    ("timeout", "left"),
    [(None, 40), (0, float("inf")), (10**10, float("inf")), (20, 20), (Decimal(20), 20)],
)
def test_how_long_a_value_lives(timeout: object, left: float):
    """The default, none, or the one that is given, for one key and for many."""
    cache = ShardCache(URL, default_timeout=timedelta(seconds=40))
    cache.set("set", 1, timeout)
    cache.add("added", 1, timeout)
    cache.set_many({"many": 1}, timeout)
    for key in ("set", "added", "many"):
        assert cache.client.ttl(key) == pytest.approx(left, abs=5)


def test_a_counter_keeps_its_expiry():
    """A new one has the default timeout, and then keeps what it has."""
    cache = ShardCache(URL, default_timeout=40)
    assert cache.dec("n", 3) == -3
    assert cache.client.ttl("n") == pytest.approx(40, abs=5)
    cache.set("m", 1, timeout=1000)
    assert cache.inc("m") == 2
    assert cache.client.ttl("m") == pytest.approx(1000, abs=5)


def test_what_is_no_number_does_not_count(cache: ShardCache):
    """It is an error, as on every server."""
    cache.set("text", "ten")
    with pytest.raises(NotACounterError):
        cache.inc("text")


def test_an_object_needs_a_secret(cache: ShardCache):
    """The error says so, whichever call it was."""
    for store in (cache.set, cache.add, lambda key, value: cache.set_many({key: value})):
        with pytest.raises(EncodeError, match=r"msgpack.* cannot store .*Thing.*; with secret= "):
            store("thing", Thing("x"))


@pytest.mark.parametrize("secret", ["x", b"x", ["x", "older"], "long enough to be used as it is"])
def test_with_a_secret_any_object_is_stored(secret: object):
    """A short secret is taken as well, as that of an application is."""
    cache = ShardCache(URL, secret=secret)
    assert cache.set("thing", Thing("x"))
    assert cache.get("thing") == Thing("x")


def test_an_error_of_pickle_is_its_own():
    """As cachelib promises."""
    cache = ShardCache(URL, secret="x")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        cache.set("function", lambda: None)


def test_a_codec_that_is_named_is_used():
    """By an option or in the URL."""
    by_option = ShardCache(URL, secret="x", codec="json")
    in_the_url = ShardCache(f"{URL}?codec=json", secret="x")
    for cache in (by_option, in_the_url):
        with pytest.raises(EncodeError, match="json") as error:
            cache.set("thing", Thing("x"))
        assert "with secret= " not in str(error.value)


def test_clear_ends_only_what_has_its_prefix():
    """Two caches over one client's nodes, as two applications over one Redis."""
    nodes = Client(URL, clearable=True)
    one, other = (ShardCache(client=nodes.view(namespace=name)) for name in ("one", "other"))
    one.set("k", 1)
    other.set("k", 2)
    assert one.clear()
    assert one.get("k") is None
    assert other.get("k") == 2


def test_a_prefix_is_part_of_the_namespace():
    """Behind the namespace of the URL."""
    cache = ShardCache(f"{URL}?namespace=shop:", key_prefix="web:")
    assert "namespace='shop:web:'" in repr(cache.client.view())


def test_a_cache_that_is_not_clearable_writes_the_keys_of_cachelib():
    """With the prefix as it is; clearing it empties the nodes."""
    cache = ShardCache(URL, key_prefix="web:", clearable=False)
    cache.set("k", 1)
    assert cache.client.get("web:k") == 1
    assert cache.clear()
    assert cache.get("k") is None


def test_a_client_that_is_given_is_shared_and_not_closed():
    """Nor can it be cleared unless it was made for that."""
    with Client(URL) as client:
        cache = ShardCache(client=client, key_prefix="web:")
        cache.set("k", 1)
        assert client.get("web:k") == 1
        with pytest.raises(ConfigurationError, match="flush_all"):
            cache.clear()
        cache.close()
        assert client.get("web:k") == 1


@pytest.mark.skipif(JSON is None, reason="this cachelib has no JSONSerializer")
def test_a_serializer_takes_the_place_of_the_codec():
    """All values but whole numbers pass through it; JSON needs no secret."""
    cache = ShardCache(URL)
    assert cache.serializer is None
    cache.set("before", "[1]")
    cache.serializer = JSON()
    assert isinstance(cache.serializer, JSON)
    assert cache.get("before") is None
    for value in ("text", [1, None], True):
        cache.set("k", value)
        assert cache.get("k") == value
    cache.set("n", 1)
    assert cache.inc("n") == 2
    with pytest.raises(EncodeError, match=r"JSONSerializer cannot store Thing$"):
        cache.set("thing", Thing("x"))


def test_a_serializer_of_pickles_needs_a_secret():
    """Bytes of the cache are unpickled only with a signature."""
    from cachelib.serializers import SimpleSerializer  # noqa: PLC0415 - one test's

    with pytest.raises(ConfigurationError, match="secret"):
        ShardCache(URL).serializer = SimpleSerializer()
    cache = ShardCache(URL, secret="x")
    cache.serializer = SimpleSerializer()
    cache.set("thing", Thing("x"))
    assert cache.get("thing") == Thing("x")


def test_wrong_options_are_named():
    """With what is known, before anything is connected."""
    with pytest.raises(
        ConfigurationError, match=r"'colour' \(known: clearable, client, codec, "
    ) as e:
        ShardCache(URL, colour="red", shape="round")
    assert len(e.value.faults) == 2
    with pytest.raises(ConfigurationError, match="url: is missing"):
        ShardCache()
    with pytest.raises(ConfigurationError, match="no url or options"):
        ShardCache(URL, client=Client(URL))
    with pytest.raises(ConfigurationError, match="default_timeout instead"):
        ShardCache(f"{URL}?default_ttl=60")
    with pytest.raises(TypeError, match="timeout must be"):
        ShardCache(URL, default_timeout="soon")
    with pytest.raises(ConfigurationError, match="key_prefix: must be text"):
        ShardCache(URL, key_prefix=str)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"url": 5}, "url: must be a URL or a list of URLs, not int"),
        ({"url": URL, "namespace": None}, "namespace: must be text, not NoneType"),
        ({"url": URL, "secret": 5}, "secret: must be text or bytes"),
        ({"client": URL}, "client: must be a shardcache.Client, not str"),
        ({"client": AsyncClient(URL)}, "client: must be a shardcache.Client, not AsyncClient"),
    ],
)
def test_a_wrong_type_is_named(arguments: dict[str, object], fault: str):
    """When the cache is made: the calls of an `AsyncClient` would do nothing."""
    with pytest.raises(ConfigurationError, match=fault):
        ShardCache(**arguments)


@pytest.mark.parametrize("secret", ["", b"", ["long enough", ""], []])
def test_an_empty_secret_is_refused(secret: object):
    """What is derived from it everybody knows, and a pickle of a stranger would run."""
    with pytest.raises(
        ConfigurationError, match="secret: must be text or bytes that are not empty"
    ):
        ShardCache(URL, secret=secret)


@pytest.mark.parametrize(("key", "why"), [("", "must not be empty"), (7, "must be str, not int")])
def test_a_wrong_key_is_named(cache: ShardCache, key: object, why: str):
    """For one key and for many."""
    for call in (cache.get, cache.get_many, cache.delete_many, lambda k: cache.set_many({k: 1})):
        with pytest.raises(InvalidKeyError, match=why):
            call(key)


def test_a_secret_is_in_no_traceback():
    """Error reporters collect local variables."""
    with pytest.raises(ConfigurationError) as error:
        ShardCache(URL, secret="do not show this", codec="no such codec")
    frames = []
    trace = error.value.__traceback__
    while trace is not None:
        frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert "do not show this" not in "".join(frames[1:])  # the first frame is this test's


def test_an_old_framework_gets_words(monkeypatch: pytest.MonkeyPatch):
    """Where an installation has not checked what it needs."""
    monkeypatch.setattr(releases, "version", lambda _: "0.8.2")
    with pytest.raises(ConfigurationError, match=r"needs cachelib 0.9 or newer, and 0.8.2 is "):
        ShardCache(URL)
