"""What is passed by mistake is refused in words that name the call and the way out, by both clients."""

from __future__ import annotations

import pytest

import shardcache
from shardcache import AsyncClient, Client, ConfigurationError, Observer
from shardcache.testing.driving import MODES, make_client

NO_LISTS = ["user:7", b"user:7", bytearray(b"user:7"), 7, None]


def look_up(ids):
    """Return a value for each item."""
    return dict.fromkeys(ids)


@pytest.fixture(params=MODES)
def client(request):
    """Return a client of each kind."""
    client = make_client(request.param, "memory://a,b,c")
    yield client
    client.close()


@pytest.fixture
def calls(client):
    """Return each call that takes the options of a policy, by its name."""
    return {
        "cached": [client.cached, shardcache.cached],
        "cached_many": [client.cached_many, shardcache.cached_many],
        "get_or_set": [lambda ttl, **more: client.get_or_set("k", int, ttl, **more)],
        "get_or_set_many": [lambda ttl, **more: client.get_or_set_many(["k"], dict, ttl, **more)],
    }


@pytest.mark.parametrize("name", ["cached", "cached_many", "get_or_set", "get_or_set_many"])
def test_a_wrong_option_is_named_by_the_call_that_got_it(calls, name):
    """An unknown one, and one with a value that cannot be."""
    for call in calls[name]:
        with pytest.raises(TypeError, match=rf"^{name}\(\) got .* 'stael' \(known: cache_errors, "):
            call(60, stael=3)
        with pytest.raises(ConfigurationError, match=f"^{name}: stale must be zero or more$"):
            call(60, stale=-1)


@pytest.mark.parametrize("lock", ["shrad", True])
def test_many_keys_are_offered_no_lock_that_they_refuse(calls, lock):
    """`True` would be the next attempt."""
    for name in ("cached_many", "get_or_set_many"):
        for call in calls[name]:
            with pytest.raises(ConfigurationError) as caught:
                call(60, lock=lock)
            assert caught.value.faults[0].startswith(
                f"{name}: lock must be False, 'local' or 'shard', not {lock!r}: a lock on a majority"
            )


def test_a_missing_ttl_is_named_by_its_decorator(client):
    """With the line to write."""
    for name in ("cached", "cached_many"):
        with pytest.raises(ConfigurationError, match=rf"^{name}: .* @client\.{name}\(ttl=…\)"):
            getattr(client, name)()
        with pytest.raises(ConfigurationError, match=rf"^{name}: dict.* @client\.{name}\(ttl=…\)"):
            getattr(client, name)({}.get)
        shardcache.configure("memory://a")
        function = getattr(shardcache, name)()(look_up)
        with pytest.raises(ConfigurationError, match=rf"^{name} .* no ttl, .* @{name}\(ttl=…\)"):
            function([1])


@pytest.mark.parametrize("keys", NO_LISTS, ids=repr)
@pytest.mark.parametrize("call", ["get_many", "delete_many", "get_or_set_many"])
def test_text_is_no_list_of_keys(client, call, keys):
    """It would be a list of its letters, and bytes one of numbers."""
    more = (dict.fromkeys, 60) if call == "get_or_set_many" else ()
    kind = type(keys).__name__
    with pytest.raises(
        TypeError, match=rf"^{call}: keys must be a list, not {kind}; write \[key\]"
    ):
        getattr(client, call)(keys, *more)


@pytest.mark.parametrize("items", [*NO_LISTS, [("user:7", "Ada")], {"user:7"}], ids=repr)
def test_pairs_are_no_mapping(client, items):
    """Nor is anything else that has no keys."""
    kind = type(items).__name__
    with pytest.raises(
        TypeError, match=f"^set_many: must be a mapping from key to value, not {kind}$"
    ):
        client.set_many(items)


@pytest.mark.parametrize(
    "of", [tuple, set, iter, dict.fromkeys, lambda keys: (key for key in keys)]
)
def test_any_collection_of_keys_is_taken(client, of):
    """Each key once."""
    keys = ["a", "b", "c"]
    assert client.set_many(dict.fromkeys(keys, 1)) == []
    assert client.get_many(of(keys)) == dict.fromkeys(keys, 1)
    assert client.get_or_set_many(of(keys), dict.fromkeys, 60) == dict.fromkeys(keys, 1)
    assert client.delete_many(of(keys)) == 3


OBSERVERS = [7, None, "me", Observer(), {"me": Observer()}]


@pytest.mark.parametrize("observers", OBSERVERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("mode", MODES)
def test_observers_are_a_list(mode, observers):
    """One by itself is the likeliest mistake."""
    kind = type(observers).__name__
    message = f"^observers: must be a list of observers, not {kind}$"
    with pytest.raises(ConfigurationError, match=message):
        make_client(mode, "memory://a", observers=observers)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("settings", ["memory://a", {"nodes": "memory://a"}, None], ids=repr)
def test_settings_are_of_their_own_type(kind, settings):
    """The error names the call that takes a URL."""
    with pytest.raises(
        ConfigurationError, match=r"^from_settings: must be Settings, not .* from_url"
    ):
        kind.from_settings(settings)
