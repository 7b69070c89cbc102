"""Many cached values at once: through both clients, on nodes of every kind."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

import pytest

import shardcache
from clients.sources import Driven
from shardcache import AsyncClient, Client, ConfigurationError
from shardcache.testing.driving import MODES, DrivenClient, make_client

KEYS = [f"k{number}" for number in range(20)]


@dataclass
class Price:
    """A value of one's own type."""

    cents: int


class Many:
    """A factory of many values that notes what it was asked for."""

    def __init__(self):
        self.batches = []
        self.version = 0

    def make(self, keys):
        """Return each key with the version; `None` for what ends in 7, and nothing for what ends in 9."""
        self.batches.append(list(keys))
        return {
            key: None if f"{key}".endswith("7") else f"{key}:{self.version}"
            for key in keys
            if not f"{key}".endswith("9")
        }


@pytest.fixture
def many():
    """Return a factory."""
    return Many()


def expected(keys=KEYS, version=0):
    """Return what a call gets."""
    made = Many()
    made.version = version
    return made.make(keys)


class TestGetOrSetMany:
    """`get_or_set_many`, on nodes of each kind."""

    def test_only_missing_keys_are_recomputed(self, source, many):
        """`None` is a value, and an absent key is asked for again."""
        call = source.client.get_or_set_many
        assert call(KEYS[:5], many.make, 60) == expected(KEYS[:5])
        many.version = 1
        assert call(KEYS, many.make, 60) == expected(KEYS, 1) | expected(KEYS[:5])
        assert call(iter(KEYS), many.make, ttl=60) == expected(KEYS, 1) | expected(KEYS[:5])
        assert many.batches == [KEYS[:5], KEYS[5:], ["k9", "k19"]]
        assert source.client.get("k3") == "k3:0"
        assert call([], many.make, 60) == {}

    def test_large_values_and_many_keys(self, source):
        """More than fits into one packet, either way."""
        keys = [f"large{number}" for number in range(300)]

        def factory(missing):
            return {key: key.encode() * 2000 for key in missing}

        values = factory(keys)
        assert source.client.get_or_set_many(keys, factory, 60) == values
        assert source.client.get_or_set_many(keys, lambda _: {}, 60) == values

    def test_what_is_deleted_is_recomputed_alone(self, source, many):
        """`delete`, tags and all else hold for each key."""
        call = source.client.get_or_set_many
        call(KEYS, many.make, 60, tags=["all"])
        source.client.delete(KEYS[0])
        many.version = 1
        assert call(KEYS[:3], many.make, 60, tags=["all"])[KEYS[0]] == "k0:1"
        assert many.batches[1:] == [KEYS[:1]]
        source.client.invalidate_tag("all")
        call(KEYS[:3], many.make, 60, tags=["all"])
        assert many.batches[2:] == [KEYS[:3]]

    @pytest.mark.parametrize("lock", [False, "shard"])
    def test_an_error_of_the_factory_reaches_the_caller(self, source, many, lock):
        """The next call tries again at once."""

        def broken(_):
            raise LookupError("source")

        call = source.client.get_or_set_many
        with pytest.raises(LookupError, match="source"):
            call(KEYS, broken, 60, lock=lock)
        began = time.monotonic()
        assert call(KEYS, many.make, 60, lock=lock) == expected()
        assert time.monotonic() - began < 4


class TestCachedMany:
    """`cached_many`, through both clients."""

    @pytest.fixture(params=MODES)
    def client(self, request):
        """Return a client of each kind."""
        client = make_client(request.param, "memory://a,b,c")
        yield client
        client.close()

    @pytest.fixture
    def cache(self, client, many):
        """Return a maker of cached functions."""

        def make(**terms):
            decorate = client.cached_many(**{"ttl": 60, "namespace": "f", **terms})
            if isinstance(client, DrivenClient):

                @decorate
                async def function(ids, tenant="t"):
                    return {number: f"{tenant}:{many.make([number])[number]}" for number in ids}

                return Driven(function, client.loop)

            @decorate
            def plain(ids, tenant="t"):
                return {number: f"{tenant}:{many.make([number])[number]}" for number in ids}

            return plain

        return make

    def test_each_item_has_its_own_value(self, cache, many):
        """Further arguments are part of the keys; items may be given by name."""
        f = cache()
        assert f([1, 2]) == {1: "t:1:0", 2: "t:2:0"}
        assert f([2, 3]) == {2: "t:2:0", 3: "t:3:0"}
        assert f(ids=(3, 1)) == {3: "t:3:0", 1: "t:1:0"}
        assert f([1], tenant="u") == {1: "u:1:0"}
        assert many.batches == [[1], [2], [3], [1]]
        assert f.cache_info().recomputes == 4

    def test_templates_stand_for_an_item(self, cache, client):
        """So does `ignore` leave out another argument."""
        f = cache(key="user:{ids}", ignore="tenant")
        f([6, 8])
        assert f.key_for([6]) == "f:0:user:6"
        assert client.get("f:0:user:8") == "t:8:0"
        assert f([6], tenant="u") == {6: "t:6:0"}

    def test_the_further_methods(self, cache, many):
        """They take items too."""
        f = cache()
        f([1, 2])
        assert f.get([1, 3]) == {1: "t:1:0"}
        many.version = 1
        assert f.refresh([2, 3]) == {2: "t:2:1", 3: "t:3:1"}
        assert f.invalidate([1, 9]) is True
        assert f.invalidate([9]) is False
        assert f.get([1, 2]) == {2: "t:2:1"}
        assert f.set({1: "one", 4: "four"}, [1, 4]) is True
        assert f.get([1, 4]) == {1: "one", 4: "four"}
        assert f.invalidate_all() is True
        assert f.get([1, 2, 3, 4]) == {}
        assert f.bypass([5]) == {5: "t:5:1"}
        assert f.get([5]) == {}

    def test_tags_and_conditions_see_the_item(self, cache, client):
        """As the argument that stands for it."""
        f = cache(
            tags=["user:{ids}", lambda _, value: value],
            condition=lambda _, arguments: arguments["ids"] != 2,
        )
        f([1, 2, 3])
        assert f.get([1, 2, 3]) == {1: "t:1:0", 3: "t:3:0"}
        assert client.invalidate_tag("user:1") is True
        assert f.get([1, 3]) == {3: "t:3:0"}
        assert client.invalidate_tag("t:3:0") is True
        assert f.get([3]) == {}

    @pytest.mark.parametrize("items", ["text", b"text", 7])
    def test_items_must_be_a_list(self, cache, items):
        """Text would be taken for its letters."""
        with pytest.raises(TypeError, match="items must be a list"):
            cache()(items)

    def test_calls_that_make_no_sense(self, cache):
        """Each says what is wrong."""
        f = cache()
        with pytest.raises(TypeError, match="no items"):
            f()
        with pytest.raises(TypeError, match="of one value"):
            f.entry([1])
        with pytest.raises(TypeError, match="a list of one item, not 2"):
            f.key_for([1, 2])

    def test_own_types_and_codecs(self, client):
        """`returns` is the type of one value, for both."""

        def prices(keys):
            return {key: Price(len(key)) for key in keys}

        for _ in range(2):
            found = client.get_or_set_many(["a", "bc"], prices, 60, returns=Price)
            assert found == {"a": Price(1), "bc": Price(2)}
        decorate = client.cached_many(ttl=60, namespace="f", returns=Price, codec="json")

        async def awaited(keys):
            return prices(keys)

        driven = isinstance(client, DrivenClient)
        f = Driven(decorate(awaited), client.loop) if driven else decorate(prices)
        assert [f(["a"]), f(["a"]), f.get(["a"])] == [{"a": Price(1)}] * 3
        with pytest.raises(
            ConfigurationError, match="cached_many: returns must be the type of one"
        ):
            client.cached_many(ttl=60, returns=True)

    def test_policies_that_make_no_sense(self, client):
        """A quorum lock, and kept errors."""
        with pytest.raises(ConfigurationError, match="cached_many: lock must be"):
            client.cached_many(ttl=60, lock=True)
        with pytest.raises(ConfigurationError, match="get_or_set_many: cache_errors"):
            client.get_or_set_many(["k"], dict, 60, cache_errors=KeyError)


def test_methods():
    """The items come after `self`, or `cls`."""
    client = Client("memory://a,b,c")

    class Shop:
        def __init__(self):
            self.asked = []

        @client.cached_many(ttl=60, namespace="shop", ignore="self")
        def prices(self, ids, currency="EUR"):
            self.asked.append(ids)
            return {number: f"{number} {currency}" for number in ids}

        @client.cached_many(ttl=60, namespace="names", ignore="cls")
        @classmethod
        def names(cls, ids):
            return {number: f"{cls.__name__} {number}" for number in ids}

    shop = Shop()
    assert shop.prices([1, 2]) == {1: "1 EUR", 2: "2 EUR"}
    assert shop.prices(ids=[2, 3]) == {2: "2 EUR", 3: "3 EUR"}
    assert shop.asked == [[1, 2], [3]]
    assert Shop.names([1]) == {1: "Shop 1"}


def test_the_default_clients():
    """`shardcache.cached_many` takes plain functions and coroutine functions."""
    shardcache.configure("memory://a,b,c")

    @shardcache.cached_many(ttl=60, namespace="plain", codec="json")
    def plain(ids):
        return {number: number + 1 for number in ids}

    @shardcache.cached_many(ttl=60, namespace="awaited")
    async def awaited(ids):
        return {number: number + 2 for number in ids}

    async def main():
        try:
            return await awaited([1, 2])
        finally:
            await shardcache.aclose_default_clients()

    assert plain([1, 2]) == {1: 2, 2: 3}
    assert asyncio.run(main()) == {1: 3, 2: 4}


@pytest.mark.parametrize("lock", [False, "shard"])
def test_threads_share_flights(all_urls, many, lock):
    """Threads that want overlapping keys in opposite orders: each key is recomputed once."""
    client = Client(all_urls, timeout=5)
    results = []

    def slow(keys):
        time.sleep(0.2)
        return many.make(keys)

    def call(number):
        keys = KEYS[:18] if number % 2 else KEYS[17:2:-1]
        results.append(client.get_or_set_many(keys, slow, 60, lock=lock) == expected(keys))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 10
    assert results == [True] * 12
    stored = sorted(key for batch in many.batches for key in batch if key != "k9")
    assert stored == sorted(key for key in KEYS[:18] if key != "k9")
    assert len(client._io.single_flight) == 0
    client.close()


def test_clients_become_one_by_leases(urls, many):
    """With `lock="shard"` two clients recompute each key once, and wait for each other's."""
    clients = [Client(urls, timeout=5) for _ in range(2)]
    results = []

    def slow(keys):
        time.sleep(0.3)
        return many.make(keys)

    def call(number):
        keys = KEYS[:9] if number else KEYS[8::-1]
        results.append(clients[number].get_or_set_many(keys, slow, 60, lock="shard"))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected(KEYS[:9])] * 2
    assert sorted(key for batch in many.batches for key in batch) == sorted(KEYS[:9])
    for client in clients:
        client.close()


def test_a_factory_that_raises_stop_iteration():
    """No coroutine can raise it; the caller sees it all the same."""
    client = Client("memory://a,b,c")
    with pytest.raises(StopIteration, match="source"):
        client.get_or_set_many(KEYS, lambda _: _stop(), 60)


def _stop():
    raise StopIteration("source")


def test_an_interrupt_releases_what_was_claimed():
    """The next call begins at once."""
    client = Client("memory://a,b,c")

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.get_or_set_many(KEYS, interrupted, 60, lock="shard")
    began = time.monotonic()
    values = client.get_or_set_many(KEYS, lambda keys: dict.fromkeys(keys, 1), 60, lock="shard")
    assert values == dict.fromkeys(KEYS, 1)
    assert time.monotonic() - began < 1
    assert len(client._io.single_flight) == 0


def test_an_async_factory_may_be_plain():
    """As for `get_or_set`."""

    async def main():
        async with AsyncClient("memory://a,b,c") as client:
            return await client.get_or_set_many(["a"], lambda keys: dict.fromkeys(keys, 1), 60)

    assert asyncio.run(main()) == {"a": 1}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [5, None, {"a": 1}])
def test_a_value_in_place_of_the_function_gets_words(mode, value):
    """As Django's `get_or_set` takes it; `None` failed with an `AttributeError` of ours."""
    client = make_client(mode, "memory://a")
    with pytest.raises(
        TypeError, match=r"^get_or_set: factory must be a function, not \w+: .*lambda"
    ):
        client.get_or_set("k", value, ttl=60)
    with pytest.raises(TypeError, match=r"^get_or_set_many: factory must be a function, not \w+: "):
        client.get_or_set_many(["k"], value, ttl=60)
