"""`f.entry`: a cached value with its age, in both clients."""

from __future__ import annotations

import dataclasses

import pytest

from shardcache import AsyncClient, CacheEntry, Client


def test_a_value_with_its_age(source):
    """On nodes of each kind."""
    f = source.cached(ttl=60, stale=30, jitter=0)
    assert f.entry(1) is None
    f(1)
    entry = f.entry(number=1)
    assert (entry.value, entry.fresh) == ("made", True)
    assert 0 <= entry.age < 30
    assert entry.age + entry.remaining == pytest.approx(60)
    assert source.calls == [1]
    f.set("put", 1)
    assert f.entry(1).value == "put"


def test_a_value_without_its_age(source, nodes):
    """The node tells how much longer it keeps it, except by memcached's classic protocol."""
    f = source.cached(ttl=60, jitter=0)
    f(1)
    entry = f.entry(1)
    assert (entry.value, entry.age, entry.fresh) == ("made", None, True)
    if any(url.startswith("pymemcache:") for url in nodes):
        assert entry.remaining is None
    else:
        assert 30 < entry.remaining <= 60


def test_a_cached_none_is_an_entry(source):
    """`get` cannot tell it from a missing value."""
    source.result = None
    f = source.cached()
    f(1)
    assert (f.get(1), f.get(2)) == (None, None)
    assert (f.entry(1).value, f.entry(2)) == (None, None)


async def test_methods_have_entries():
    """Of an instance and of a class, in both clients."""
    with Client("memory://a") as client:
        async with AsyncClient("memory://a") as async_client:

            class Shop:
                @client.cached(ttl=60, ignore="self", namespace="price")
                def price(self, article):
                    return article

                @client.cached(ttl=60, ignore="cls", namespace="vat")
                @classmethod
                def vat(cls, country):
                    return country

                @async_client.cached(ttl=60, ignore="self", namespace="stock")
                async def stock(self, article):
                    return article

            shop = Shop()
            assert shop.price.entry(7) is Shop.vat.entry("DE") is await shop.stock.entry(7) is None
            assert (shop.price(7), Shop.vat("DE"), await shop.stock(8)) == (7, "DE", 8)
            assert (shop.price.entry(7).value, shop.vat.entry("DE").value) == (7, "DE")
            assert (await shop.stock.entry(8)).value == 8


def test_an_entry_is_a_frozen_value():
    """It prints and compares as one."""
    entry = CacheEntry(value=7, age=1.5, remaining=8.5, fresh=True)
    assert entry == dataclasses.replace(entry)
    assert repr(entry) == "CacheEntry(value=7, age=1.5, remaining=8.5, fresh=True)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.value = 8
