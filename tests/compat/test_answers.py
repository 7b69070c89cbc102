"""Each call returns what pymemcache's `HashClient` returns, or raises an error that is one of its kind."""

from __future__ import annotations

import inspect
import time

import pytest
from pymemcache.client.hash import HashClient as TheirHashClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
)
from pymemcache.serde import pickle_serde

from shardcache.compat.pymemcache import HashClient

NOREPLY = True  # by position
DATE = int(time.time()) + 3600  # memcached reads such a number as a date


def with_token(client, key):
    """Return the token of a value; each client has its own."""
    return client.gets(key)[1]


# The calls of each script go to one client after another; each begins with empty servers.
SCRIPTS = {
    "get": [
        lambda c: c.get("k"),
        lambda c: c.get("k", 7),
        lambda c: c.get("k", default=7),
        lambda c: c.set("k", None),
        lambda c: c.get("k", 7),
        lambda c: c.get(b"k"),
    ],
    "set": [
        lambda c: c.set("k", 1),
        lambda c: c.set("k", "text", 60),
        lambda c: c.set("k", b"bytes", expire=60, noreply=True),
        lambda c: c.get("k"),
        lambda c: c.set("k", 1, DATE),
        lambda c: c.get("k"),
        lambda c: c.set("k", 1, -1),
        lambda c: c.get("k"),
        lambda c: c.set("k", 1, 2**31 - 1),
        lambda c: c.get("k"),
        lambda c: c.set("k", b"", flags=0),
        lambda c: c.get("k"),
        lambda c: c.set("k", 1, 1.5),
        lambda c: c.set("k", 1, "60"),
    ],
    "add": [
        lambda c: c.add("k", 1),
        lambda c: c.add("k", 2),
        lambda c: c.add("k", 2, noreply=True),
        lambda c: c.get("k"),
        lambda c: c.add("l", 1, 60, NOREPLY),
        lambda c: c.add("m", 1, -1),
        lambda c: c.get("m"),
    ],
    "replace": [
        lambda c: c.replace("k", 1),
        lambda c: c.replace("k", 1, noreply=True),
        lambda c: c.set("k", 1),
        lambda c: c.replace("k", 2),
        lambda c: c.get("k"),
        lambda c: c.replace("k", 2, -1),
        lambda c: c.get("k"),
    ],
    "append": [
        lambda c: c.append("k", b"v"),
        lambda c: c.prepend("k", b"v", noreply=True),
        lambda c: c.set("k", "text", 60),
        lambda c: c.append("k", b" after"),
        lambda c: c.prepend("k", "before ", 5, NOREPLY),
        lambda c: c.get("k"),
        lambda c: c.append("k", b"", flags=0),
        lambda c: c.get("k"),
        lambda c: c.append("k", b"v", 1.5),
        lambda c: c.append("two words", b"v"),
    ],
    "cas": [
        lambda c: c.cas("k", 1, b"1"),
        lambda c: c.gets("k"),
        lambda c: c.gets("k", 7, 8),
        lambda c: c.set("k", 1),
        lambda c: c.gets("k")[0],
        lambda c: type(with_token(c, "k")),
        lambda c: c.cas("k", 2, int(with_token(c, "k"))),
        lambda c: c.cas("k", 2, with_token(c, "k").decode(), 60),
        lambda c: c.cas("k", 2, b"9999999"),
        lambda c: c.cas("k", 2, b"9999999", noreply=True),
        lambda c: c.cas("k", 2, "x"),
        lambda c: c.cas("k", 2, 1.5),
        lambda c: c.cas("k", 2, -1),
        lambda c: c.cas("k", 3, with_token(c, "k"), -1),
        lambda c: c.get("k"),
    ],
    "many": [
        lambda c: c.get_many([]),
        lambda c: c.set_many({}),
        lambda c: c.delete_many([]),
        lambda c: c.set_many({"a": 1, b"b": "2", "c": [3]}),
        lambda c: c.set_many({"d": 1}, 60, NOREPLY),
        lambda c: c.get_many(["a", b"b", "c", "d", "e"]),
        lambda c: c.get_multi(key for key in "abc"),
        lambda c: {key: value for key, (value, _) in c.gets_many(["a", "c", "e"]).items()},
        lambda c: {key: value for key, (value, _) in c.get_many(["a"], gets=True).items()},
        lambda c: c.gets_multi([]),
        lambda c: c.delete_many(["a", "e"]),
        lambda c: c.delete_multi(["c"], noreply=True),
        lambda c: c.set_multi({"f": 1}, -1),
        lambda c: c.get_many(tuple("abcdef")),
    ],
    "delete": [
        lambda c: c.delete("k"),
        lambda c: c.delete("k", noreply=True),
        lambda c: c.set("k", 1),
        lambda c: c.delete("k"),
        lambda c: c.get("k"),
    ],
    "counters": [
        lambda c: c.incr("k", 1),
        lambda c: c.decr("k", 1),
        lambda c: c.set("k", 9),
        lambda c: c.incr("k", 1),
        lambda c: c.decr("k", 3),
        lambda c: c.get("k"),
        lambda c: c.decr("k", 100),
        lambda c: c.incr("k", 2**62),
        lambda c: c.incr("k", 0),
        lambda c: c.incr("k", 1, noreply=True),
        lambda c: c.decr("k", 1, NOREPLY),
        lambda c: c.get("k"),
        lambda c: c.incr("k", -1),
        lambda c: c.incr("k", "1"),
        lambda c: c.set("k", "text"),
        lambda c: c.incr("k", 1),
    ],
    "touch": [
        lambda c: c.touch("k"),
        lambda c: c.touch("k", noreply=True),
        lambda c: c.set("k", 1),
        lambda c: c.touch("k", 60),
        lambda c: c.touch("k"),
        lambda c: c.touch("k", DATE),
        lambda c: c.get("k"),
        lambda c: c.touch("k", -1),
        lambda c: c.get("k"),
        lambda c: c.touch("k", 1.5),
    ],
    "servers": [
        lambda c: c.set("k", 1),
        lambda c: c.quit(),
        lambda c: c.get("k"),
        lambda c: c.close(),
        lambda c: c.get("k"),
        lambda c: c.disconnect_all(),
        lambda c: c.get("k"),
        lambda c: c.flush_all(),
        lambda c: c.get("k"),
        lambda c: c.flush_all(0, NOREPLY),
        lambda c: c.flush_all(delay="1"),
    ],
    "keys": [
        lambda c: c.set("k" * 250, 1),
        lambda c: c.set("k" * 251, 1),
        lambda c: c.get(b"two words"),
        lambda c: c.get("new\nline"),
        lambda c: c.get("tab\t"),
        lambda c: c.get("\0"),
        lambda c: c.get("ключ"),
        lambda c: c.get(""),
        lambda c: c.get(7),
        lambda c: c.get_many(["k", "two words"]),
        lambda c: c.set_many({"two words": 1}),
        lambda c: c.delete_many(["two words"]),
        lambda c: c.touch("two words"),
        lambda c: c.incr("two words", 1),
        lambda c: c.set("control\x01", 1),
        lambda c: c.get("control\x01"),
        lambda c: c.set("4:shop:cart", 1),
        lambda c: c.get("4:shop:cart"),
        lambda c: c.set("~sc:k:", 1),
        lambda c: c.get("~sc:k:"),
    ],
    "values": [
        lambda c: c.set("k", b"v" * 2_000_000),
        lambda c: c.get("k"),
        lambda c: c.set("k", b"v" * 1_000_000),
        lambda c: len(c.get("k")),
        lambda c: c.set("k", 1, flags=16),
        lambda c: c.get("k"),
        lambda c: c.set("k", 1, flags=-1),
    ],
}

SETTINGS = {
    "serde": {"serde": pickle_serde},
    "prefix": {"serde": pickle_serde, "key_prefix": b"shop:"},
    "noreply": {"serde": pickle_serde, "default_noreply": True},
    "ignoring": {"serde": pickle_serde, "ignore_exc": True},
    "pooling": {"serde": pickle_serde, "use_pooling": True, "max_pool_size": 4},
}


def outcome(call, client):
    """Return the result of a call with its type, or the error that it raised."""
    try:
        result = call(client)
    except Exception as error:  # noqa: BLE001 - it is compared
        return error
    return type(result), result


def agree(ours, theirs):
    """Return whether ours is as theirs: an equal result, or an error that the same callers catch."""
    if isinstance(theirs, Exception):
        return any(isinstance(ours, kind) and isinstance(theirs, kind) for kind in CAUGHT)
    return ours == theirs


CAUGHT = (MemcacheClientError, MemcacheServerError, OSError, TypeError)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_call_answers_as_pymemcache_s(make, setting, script):
    """Results are equal in value and type, errors of one kind, call by call."""
    answers = {}
    for whose in ("theirs", "ours"):
        client = make(whose, **SETTINGS[setting])
        client.flush_all(noreply=False)
        answers[whose] = [outcome(call, client) for call in SCRIPTS[script]]
    pairs = zip(answers["ours"], answers["theirs"], strict=True)
    differing = {place: pair for place, pair in enumerate(pairs) if not agree(*pair)}
    explained = {
        place
        for place, (ours, theirs) in differing.items()
        if any(explains(setting, script, ours, theirs) for explains in DIFFERENCES.values())
    }
    assert {place: differing[place] for place in differing.keys() - explained} == {}


# Where we answer otherwise, on purpose. The guide names each.
DIFFERENCES = {
    "input that is wrong is not swallowed": lambda setting, _, ours, theirs: (
        setting == "ignoring"
        and isinstance(ours, MemcacheIllegalInputError)
        and not isinstance(theirs, Exception)
        and not theirs[1]
    ),
    "gets of a pooled client takes defaults": lambda setting, script, _, theirs: (
        setting == "pooling" and script == "cas" and isinstance(theirs, TypeError)
    ),
    "a value that was refused is not called stored": lambda setting, script, ours, theirs: (
        setting == "noreply"
        and script == "values"
        and (ours == (bool, False) or isinstance(ours, MemcacheIllegalInputError))
        and theirs == (bool, True)
    ),
}


def test_every_method_is_in_a_script():
    """A method of theirs that is not compared here would be a promise that nobody checks."""
    called = {
        name for script in SCRIPTS.values() for call in script for name in call.__code__.co_names
    }
    public = {name for name in vars(TheirHashClient) if not name.startswith("_")}
    elsewhere = {"add_server", "remove_server", "client_class"}
    assert public - elsewhere <= called
    assert [name for name in public - {"client_class"} if not hasattr(HashClient, name)] == []


def test_the_parameters_are_theirs():
    """Whatever theirs takes, by name or by place, ours takes."""
    theirs = list(inspect.signature(TheirHashClient).parameters)
    ours = inspect.signature(HashClient).parameters
    assert [name for name, each in ours.items() if each.kind is not each.KEYWORD_ONLY] == theirs


def test_an_expiry_ends_a_value(make):
    """A second later the value is gone, as with theirs."""
    client = make("ours")
    client.set("k", "v", 1)
    client.set("l", "v", int(time.time()) + 1)
    client.set("m", "v", 60)
    deadline = time.monotonic() + 20
    while client.get_many(["k", "l"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.get_many(["k", "l", "m"]) == {"m": b"v"}
