"""Django's calls do over many nodes what they do over one."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import CacheKeyWarning
from django.http import HttpResponse
from django.utils.asyncio import async_unsafe
from django.utils.safestring import SafeString, mark_safe
from shardcache_django import ShardCache

from shardcache import CallFinished, LockTimeout, NotACounterError, Observer

pytestmark = pytest.mark.servers
KEYS = [f"key{number}" for number in range(40)]  # on two nodes none of these is likely to be spared


@dataclass
class Point:
    """An object of a class of the program's own."""

    x: int


class Unpicklable:
    """An object that cannot be pickled, and says so."""

    def __reduce__(self):
        raise pickle.PicklingError("not this one")


def test_any_object_comes_back_as_it_was(cache):
    """Text, numbers and objects of any class, with their type."""
    values = [None, True, 7, -1, 1.5, "é", b"\0", Point(3), mark_safe("<b>"), {(1, 2): {3}}]
    for value in values:
        cache.set("k", value)
        assert cache.get("k", "miss") == value
        assert type(cache.get("k")) is type(value)
    cache.set("response", HttpResponse(b"page"))
    assert cache.get("response").content == b"page"
    assert isinstance(cache.get_many(["k", "response"])["response"], HttpResponse)


def test_many_keys_are_read_stored_and_deleted(cache):
    """The callers' own keys come back, and those that are missing do not."""
    assert cache.set_many(dict.fromkeys(KEYS, mark_safe("v"))) == []
    found = cache.get_many(iter([*KEYS, "missing"]))
    assert found == dict.fromkeys(KEYS, "v")
    assert type(found[KEYS[0]]) is SafeString
    assert cache.delete_many(iter(KEYS[:-1])) is None
    assert cache.get_many(KEYS) == {KEYS[-1]: "v"}


@pytest.mark.parametrize("call", ["get_many", "delete_many"])
def test_text_is_no_list_of_keys(use, face, call):
    """It would be a list of its letters."""
    cache = face(use("memcached://127.0.0.1:1"))
    for keys in ("user:7", b"user:7", None):
        with pytest.raises(
            TypeError, match=rf"{call}: keys must be a list, not {type(keys).__name__}"
        ):
            getattr(cache, call)(keys)


def test_pairs_are_no_mapping(use, face):
    """The error names the call."""
    cache = face(use("memcached://127.0.0.1:1"))
    for items in ("user:7", [("user:7", 1)]):
        with pytest.raises(TypeError, match="set_many: must be a mapping from key to value, not "):
            cache.set_many(items)


class Calls(Observer):
    """The names of the commands that were sent."""

    def __init__(self):
        self.names = []

    def call_finished(self, event: CallFinished) -> None:
        """Note one."""
        self.names.append(event.command)


def test_many_keys_take_one_command_a_node(use, urls, face):
    """However many they are, through both kinds of methods."""
    calls = Calls()
    cache = face(use(urls, OPTIONS={"observers": [calls]}))
    cache.set_many(dict.fromkeys(KEYS, 1))
    cache.get_many(KEYS)
    cache.delete_many(KEYS)
    assert calls.names == [*["setmany"] * 2, *["getmany"] * 2, *["deletemany"] * 2]


@pytest.mark.parametrize(
    "timeout", [None, True, 300, 300.5, Decimal(300), timedelta(minutes=5), 10**10, float("inf")]
)
def test_a_timeout_may_be_any_number(cache, timeout):
    """Above ten years it is for ever; `True` is a second."""
    cache.set("set", 1, timeout)
    assert cache.set_many({"many": 1}, timeout=timeout) == []
    assert cache.add("added", 1, timeout) is True
    cache.set("touched", 1, 300)
    assert cache.touch("touched", timeout) is True
    assert cache.get_or_set("made", 1, timeout) == 1
    if timeout is not True:  # a second may be over by now
        assert sorted(cache.get_many(["set", "many", "added", "made"])) == sorted(
            ["set", "many", "added", "made"]
        )


@pytest.mark.parametrize("timeout", [0, -1, 0.0, timedelta(0), False])
def test_a_timeout_of_zero_or_less_deletes(cache, timeout):
    """Nothing is stored, and what was there is gone."""
    for key in ("set", "touched"):
        cache.set(key, 1)
    cache.set("set", 2, timeout)
    assert cache.touch("touched", timeout) is True
    assert cache.add("added", 1, timeout) is True
    assert cache.get_or_set("made", 1, timeout) == 1
    assert cache.get_many(["set", "touched", "added", "made"]) == {}


@pytest.mark.parametrize(
    ("timeout", "error"), [("60", TypeError), ([], TypeError), (float("nan"), ValueError)]
)
def test_a_timeout_that_is_none_is_refused(cache, timeout, error):
    """The error says what one is."""
    with pytest.raises(error, match="ttl must be"):
        cache.set("k", 1, timeout)


def test_timeout_of_the_settings_is_the_default(use, urls, face):
    """`TIMEOUT = 0` keeps nothing."""
    cache = face(use(urls, TIMEOUT=0))
    cache.set("k", 1)
    assert cache.get("k") is None
    cache.set("k", 1, 60)
    assert cache.get("k") == 1


def test_counters_go_below_zero(cache):
    """As in Django's own backends of Redis and of the process's memory."""
    cache.set("n", 3)
    assert cache.decr("n", 5) == -2
    assert cache.incr("n") == -1
    assert cache.incr("n", 11) == 10
    assert cache.incr("n", -4) == 6
    assert cache.decr("n", -1) == 7
    assert cache.get("n") == 7


@pytest.mark.parametrize("call", ["incr", "decr", "incr_version", "decr_version"])
def test_a_missing_key_cannot_be_counted(cache, call):
    """It is a `ValueError`, which callers catch."""
    with pytest.raises(ValueError, match="Key 'missing' not found"):
        getattr(cache, call)("missing")


def test_what_is_no_number_cannot_be_counted(cache):
    """It is no `ValueError`: the key is there."""
    cache.set("k", "text")
    with pytest.raises(NotACounterError) as caught:
        cache.incr("k")
    assert not isinstance(caught.value, ValueError)


def test_get_or_set_calls_a_function_only_when_it_must(cache):
    """A stored value, also `None`, is returned without a call."""
    made = []
    assert cache.get_or_set("k", lambda: made.append(1)) is None
    assert cache.get_or_set("k", lambda: made.append(2)) is None
    assert made == [1]
    assert cache.get_or_set("other", Point(1)) == Point(1)
    assert cache.get("other") == Point(1)
    cache.set("n", 5)
    assert cache.get_or_set("n", 0) == 5


def test_get_or_set_returns_what_another_caller_stored_meanwhile(cache):
    """All callers go on with one value."""

    def compute():
        caches["default"].set("k", "theirs")
        return "ours"

    assert cache.get_or_set("k", compute) == "theirs"


def test_get_or_set_does_not_read_back_what_it_stored(use, urls, face):
    """A miss takes two commands."""
    calls = Calls()
    assert face(use(urls, OPTIONS={"observers": [calls]})).get_or_set("k", 1) == 1
    assert calls.names == ["get", "set"]


async def test_aget_or_set_awaits_a_coroutine_function(use, urls):
    """Its result is what is stored."""

    async def compute():
        return 42

    cache = use(urls)
    assert await cache.aget_or_set("k", compute) == 42
    assert await cache.aget("k") == 42


@pytest.mark.parametrize("call", ["set", "add", "get_or_set"])
def test_errors_of_pickling_are_pickles_own(cache, call):
    """As Django's users catch them."""
    with pytest.raises(pickle.PicklingError, match="not this one"):
        getattr(cache, call)("k", Unpicklable())
    with pytest.raises(pickle.PicklingError, match="not this one"):
        cache.set_many({"k": Unpicklable()})
    assert cache.has_key("k") is False


@async_unsafe
def ask():
    """Stand for a query: Django refuses one on an event loop."""
    return "answer"


class Lazy:
    """An object that asks the database while it is pickled, as a `QuerySet` does."""

    def __reduce__(self):
        return str, (ask(),)


async def test_what_asks_the_database_is_pickled_in_a_thread(use, urls):
    """It can be stored from async code too, as with Django's own backends."""
    cache = use(urls)
    await cache.aset("set", Lazy())
    assert await cache.aadd("added", Lazy()) is True
    assert await cache.aadd("added", Lazy()) is False
    assert await cache.aset_many({"many": Lazy()}) == []
    assert isinstance(await cache.aget_or_set("made", Lazy), Lazy)
    keys = ["set", "added", "many", "made"]
    assert await cache.aget_many(keys) == dict.fromkeys(keys, "answer")


def test_versions_and_prefixes_keep_keys_apart(use, urls, face):
    """`KEY_PREFIX`, `VERSION` and `version=` are parts of a key, as everywhere in Django."""
    shop = face(use(urls, KEY_PREFIX="shop", VERSION=2))
    shop.set("k", "shop")
    assert shop.get("k", version=2) == "shop"
    assert shop.get("k", version=1) is None
    assert shop.incr_version("k") == 3
    assert (shop.get("k"), shop.get("k", version=3)) == (None, "shop")
    assert shop.decr_version("k", version=3) == 2
    assert shop.get("k") == "shop"
    assert caches["default"].client.get("shop:2:k") == "shop"


def test_key_function_makes_the_names(use, urls, face):
    """A name is what the project's function says."""
    cache = face(use(urls, KEY_FUNCTION=lambda key, prefix, version: f"v{version}/{key}{prefix}"))
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert caches["default"].client.get("v1/k") == 1


@pytest.mark.parametrize("key", ["two words", "x" * 400, "清"])
def test_any_text_is_a_key(cache, key):
    """Django warns of those that its own memcached backends refuse; here they work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheKeyWarning)
        cache.set(key, 1)
        assert cache.get(key) == 1
        assert cache.incr(key) == 2
        assert cache.get_many([key]) == {key: 2}
    if key != "清":
        with pytest.warns(CacheKeyWarning):
            cache.get(key)


def test_ttl_answers_as_in_django_redis(cache):
    """Whole seconds; `None` without an expiry, 0 without a key."""
    cache.set("minute", 1, 60)
    cache.set("ever", 1, None)
    assert 50 < cache.ttl("minute") <= 60
    assert cache.ttl("ever") is None
    assert cache.ttl("missing") == 0


async def test_a_lock_is_one_for_sync_and_async_code(use, urls):
    """Its name is the key with prefix and version."""
    cache = use(urls, KEY_PREFIX="shop")
    with cache.lock("import", timeout=30):
        with pytest.raises(LockTimeout):
            await cache.alock("import", 30).acquire(wait=0)
        async with cache.alock("import", version=2) as lease:
            assert 0 < lease.remaining() <= 10
    async with cache.alock("import", 30) as lease:
        assert 10 < lease.remaining() <= 30
        with pytest.raises(LockTimeout):
            cache.lock("import", 30).acquire(wait=0)


@pytest.mark.parametrize("call", ["keys", "iter_keys", "delete_pattern"])
def test_keys_are_not_listed(use, call):
    """The error names the ways out."""
    cache = use("memcached://10.0.0.1")
    with pytest.raises(NotImplementedError, match=r"invalidate_tag.*VERSION.*clearable"):
        getattr(cache, call)("user:*")


def test_clear_empties_the_servers(use, urls, face):
    """Of all their users, as Django's own backends do."""
    cache = face(use(urls))
    caches["default"].client.view(namespace="other").set_many(dict.fromkeys(KEYS, 1))
    cache.set_many(dict.fromkeys(KEYS, 1))
    assert cache.clear() is True
    assert cache.get_many(KEYS) == {}
    assert caches["default"].client.view(namespace="other").get_many(KEYS) == {}


def test_clear_of_a_clearable_cache_leaves_the_others_alone(use, urls, face):
    """It ends its own namespace, by a generation."""
    cache = face(use(urls, OPTIONS={"clearable": True, "namespace": "shop"}))
    other = caches["default"].client.view(namespace="other")
    other.set("k", 1)
    cache.set_many(dict.fromkeys(KEYS, 1))
    assert cache.clear() is True
    assert cache.get_many(KEYS) == {}
    assert other.get("k") == 1


def test_every_async_method_is_our_own():
    """None of Django's default ones, which would call one key at a time, or hop to a thread."""
    names = [
        name for name in dir(ShardCache) if name.startswith("a") and name[1:] in dir(ShardCache)
    ]
    assert len(names) > 15
    assert [name for name in names if name not in vars(ShardCache)] == []
