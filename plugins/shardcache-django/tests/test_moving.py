"""A project that moves from Django's own backends finds what the page says of its warm cache."""

from __future__ import annotations

import json

import pytest
from django.core.cache import caches
from django.http import JsonResponse
from django.test import RequestFactory, override_settings
from shardcache_django import ShardCache

pytestmark = pytest.mark.servers

MEMCACHED = "django.core.cache.backends.memcached"
PARTS = {
    **{f"paragraph:{number}": f"paragraph {number}, é" for number in range(16)},
    "visits": 41,
    "stock": -3,
    "größe": 5,
    "product": {"name": "Lamp", "sizes": (1, 2)},  # the only pickle among them
}


def page(request):
    """Show a product of twenty parts, each from the cache or computed; return how many were which."""
    parts = {f"{request.path}:{name}": part for name, part in PARTS.items()}
    found = caches["default"].get_many(parts)
    computed = {key: part for key, part in parts.items() if key not in found}
    caches["default"].set_many(computed)
    right = {**found, **computed} == parts
    return JsonResponse({"hits": len(found), "misses": len(computed), "right": right})


def view(location, **params):
    """View the page once, with the cache configured so; return its hits and misses."""
    with override_settings(CACHES={"default": {"LOCATION": location, **params}}):
        seen = json.loads(page(RequestFactory().get("/products/7")).content)
    assert seen["right"] is True
    return seen["hits"], seen["misses"]


def view_ours(servers, strategy, **options):
    """View the page with this backend."""
    options = {"strategy": strategy, "timeout": 10, **options}
    urls = [server.url for server in servers]
    return view(urls, BACKEND="shardcache_django.ShardCache", OPTIONS=options)


def hosts(servers):
    """Return servers as Django's memcached backends name them."""
    return [f"{server.host}:{server.port}" for server in servers]


def test_a_page_moves_from_pymemcache(memcached_servers):
    """Its text and numbers are found where they are; a pickle is a miss once."""
    theirs = {"BACKEND": f"{MEMCACHED}.PyMemcacheCache"}
    assert view(hosts(memcached_servers), **theirs) == (0, 20)
    assert view(hosts(memcached_servers), **theirs) == (20, 0)
    assert view_ours(memcached_servers, "pymemcache") == (19, 1)
    assert view_ours(memcached_servers, "pymemcache") == (20, 0)


def test_with_read_unsigned_not_even_the_pickle_is_a_miss(memcached_servers):
    """For the days of the move, and with all that the page says of it."""
    view(hosts(memcached_servers), BACKEND=f"{MEMCACHED}.PyMemcacheCache")
    assert view_ours(memcached_servers, "pymemcache", read_unsigned=True) == (20, 0)


def test_without_the_old_placement_about_half_of_it_is_lost(memcached_servers):
    """Two nodes, and another opinion of which is whose."""
    view(hosts(memcached_servers), BACKEND=f"{MEMCACHED}.PyMemcacheCache")
    hits, misses = view_ours(memcached_servers, "rendezvous")
    assert hits + misses == 20
    assert hits < 19


@pytest.mark.parametrize(
    ("behaviors", "strategy"),
    [({}, "modulo:profile=libmemcached"), ({"ketama": True}, "ketama:profile=pylibmc")],
)
def test_a_page_moves_from_pylibmc(memcached_servers, behaviors, strategy):
    """With the placement that its behaviors chose."""
    pytest.importorskip("pylibmc", reason="it has no wheels for Python 3.12 and later")
    theirs = {"BACKEND": f"{MEMCACHED}.PyLibMCCache", "OPTIONS": {"behaviors": behaviors}}
    assert view(hosts(memcached_servers), **theirs) == (0, 20)
    assert view_ours(memcached_servers, strategy) == (19, 1)


def test_prefix_version_and_key_function_are_part_of_what_is_found(memcached_servers):
    """They make the same names as before."""
    own = {
        "KEY_PREFIX": "shop",
        "VERSION": 3,
        "KEY_FUNCTION": lambda *parts: "/".join(map(str, parts)),
    }
    view(hosts(memcached_servers), BACKEND=f"{MEMCACHED}.PyMemcacheCache", **own)
    backend = {
        "BACKEND": "shardcache_django.ShardCache",
        "OPTIONS": {"strategy": "pymemcache", "timeout": 10},
    }
    assert view([server.url for server in memcached_servers], **backend, **own) == (19, 1)


def test_counters_of_djangos_redis_stay(redis_servers):
    """Whole numbers are the same there; its pickles are misses, and never read."""
    server = redis_servers[0]
    theirs = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
    location = f"redis://{server.host}:{server.port}"
    assert view(location, **theirs) == (0, 20)
    assert view(location, **theirs) == (20, 0)
    assert view_ours([server], "rendezvous", read_unsigned=True) == (3, 17)


def test_both_clients_count_the_same_counter(memcached_servers):
    """While old and new processes run next to each other."""
    with override_settings(
        CACHES={
            "old": {
                "BACKEND": f"{MEMCACHED}.PyMemcacheCache",
                "LOCATION": hosts(memcached_servers),
            },
            "default": {
                "BACKEND": "shardcache_django.ShardCache",
                "LOCATION": [server.url for server in memcached_servers],
                "OPTIONS": {"strategy": "pymemcache", "timeout": 10},
            },
        }
    ):
        old, new = caches["old"], caches["default"]
        assert isinstance(new, ShardCache)
        old.set("n", 1)
        assert new.incr("n") == 2
        assert old.incr("n") == 3
        assert new.get("n") == 3


def test_an_old_process_reads_new_values_as_bytes(memcached_servers):
    """So the page says to replace all processes at once, or to change `VERSION`."""
    old = {"BACKEND": f"{MEMCACHED}.PyMemcacheCache", "LOCATION": hosts(memcached_servers)}
    view_ours(memcached_servers, "pymemcache")
    with override_settings(CACHES={"default": old}):
        kinds = {name: type(caches["default"].get(f"/products/7:{name}")) for name in PARTS}
    assert {kinds[name] for name in ("visits", "stock", "größe")} == {int}
    assert {kinds[name] for name in ("paragraph:0", "product")} == {bytes}
