"""An attacker who can write to the cache decides what is read, and costs callers a bounded time.

Every key of our own that a cached function uses is filled with junk, extremes, stubs and old values. Calls
then end in time, values are made and kept again, and what `invalidate_…` answers is true.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import redis

import shardcache
from shardcache import Client, LockPolicy, ShardCacheError
from shardcache.backends.redis.header import to_redis
from shardcache.core.commands import Delete, Get, Set
from shardcache.core.keys import KeySpace
from shardcache.core.reserved_keys import CLEARED, RESERVED
from shardcache.core.values.envelopes import Envelope, pack
from shardcache.core.values.flags import (
    ABANDONED_FLAGS,
    ENVELOPE_FLAGS,
    ERROR_FLAGS,
    INTEGER_FLAGS,
    MARK_FLAGS,
    STUB_FLAGS,
    TEXT_FLAGS,
)
from shardcache.operations.recompute.protection import RefreshGate
from shardcache.testing.driving import make_client

TIMEOUT = 0.3  # seconds of a call to the nodes
WAIT = 0.2  # seconds for which a cached function waits for another's value
SLACK = 4.0  # seconds: two busy cores run this beside ten other loops
LOCK = LockPolicy(ttl=2.0, renew=False)
CALLS = 2  # of a function until it has recovered

BACKENDS = ["memory", "memcached", "redis"]
TERMS = {
    "plain": {},
    "shard": {"lock": "shard"},
    "lock": {"lock": LOCK},
    "stale": {"ttl": 0.05, "stale": 300.0, "lock": "shard"},
    "stale lock": {"ttl": 0.05, "stale": 300.0, "lock": LOCK},
    "errors": {"stale_if_error": 300.0, "ttl": 0.05},
    "tags": {"tags": ("t",)},
    "result tags": {"tags": lambda _call, _result: ("t",)},
}


def codec_flags():
    """Return the flags of what the default codec writes."""
    with Client("memory://a") as client:
        client.set("k", {})
        (member,) = client._cluster.members.values()
        return member.backend.execute(Get(b"k"), time.monotonic() + 10)[0]


def tagged(*tags):
    """Return an envelope of a value whose tags depend on it."""
    versions = [b"12345678"] * len(tags)
    return pack(Envelope(CODEC_FLAGS, b"\xc0", FAR, 0.0, FAR, versions, tags))


CODEC_FLAGS = codec_flags()
FAR = 1e300
PLANTED = {
    "nothing": (MARK_FLAGS, b""),
    "a bare stub": (0, b""),
    "junk": (MARK_FLAGS, b"\xff\x00junk"),
    "text": (TEXT_FLAGS, b"text"),
    "16 bytes": (MARK_FLAGS, b"x" * 16),
    "the word of a rest": (MARK_FLAGS, b"failed"),
    "a version": (MARK_FLAGS, b"x" * 8),
    "the greatest of names": (MARK_FLAGS, b"f" * 16),
    "the least of names": (MARK_FLAGS, b"0" * 16),
    "a huge number": (INTEGER_FLAGS, b"9" * 600),
    "a stub": (STUB_FLAGS, b"x" * 16),
    "an abandoned stub": (ABANDONED_FLAGS, b"x" * 16),
    "an error": (ERROR_FLAGS, b"\0" * 40),
    "no envelope": (ENVELOPE_FLAGS, b"\x01"),
    "an envelope without end": (ENVELOPE_FLAGS, pack(Envelope(ENVELOPE_FLAGS, b"", FAR, 0.0, FAR))),
    "an envelope of junk": (ENVELOPE_FLAGS, pack(Envelope(CODEC_FLAGS, b"\xc1", FAR, FAR, FAR))),
    "an old envelope": (ENVELOPE_FLAGS, pack(Envelope(CODEC_FLAGS, b"\xc1", 0.0, FAR, 0.0))),
    "an envelope with tags": (ENVELOPE_FLAGS, tagged(b"t")),
    "an envelope with many tags": (ENVELOPE_FLAGS, tagged(*(b"%d" % n for n in range(255)))),
    "an envelope with an empty tag": (ENVELOPE_FLAGS, tagged(b"")),
    "an envelope with a huge tag": (ENVELOPE_FLAGS, tagged(b"x" * 100_000)),
    "no numbers": (
        ENVELOPE_FLAGS,
        pack(Envelope(CODEC_FLAGS, b"\xc1", float("nan"), float("nan"), FAR)),
    ),
}
# What is worth planting under reserved keys, where nothing is decoded.
BESIDE = [
    "a bare stub",
    "junk",
    "16 bytes",
    "a version",
    "the greatest of names",
    "a stub",
    "an envelope of junk",
]
OF_REDIS = {
    "a list": ("rpush", "x"),
    "a hash": ("hset", "x", "y"),
    "a stream": ("xadd", {"x": "y"}),
}


@pytest.fixture(params=BACKENDS)
def cache(request, mode):
    """Return a client of three nodes of each kind in turn, and what an attacker writes to them with."""
    if request.param == "memory":
        urls, writers = "memory://a,b,c", []
    else:
        servers = request.getfixturevalue(f"{request.param}_servers")
        urls = [server.url for server in servers]
        writers = [redis.Redis(port=server.port) for server in servers]
    client = make_client(mode, urls, timeout=TIMEOUT)
    yield Cache(request.param, client, writers)
    client.close()
    for writer in writers:
        writer.close()


class Cache:
    """A client, with a way past it to every node."""

    def __init__(self, kind, client, writers):
        self.kind = kind
        self.client = client
        self._writers = writers
        self._twin = getattr(client, "twin", client)

    def plant(self, key, payload):
        """Put a payload under a key of every node, for ever."""
        if self.kind == "redis":
            for writer in self._writers:
                writer.set(key, to_redis(payload) if payload[0] else payload[1])
            return
        self._ask(Set(key, payload))

    def plant_type(self, key, command, *arguments):
        """Put something that is no string under a key of every Redis."""
        for writer in self._writers:
            writer.delete(key)
            getattr(writer, command)(key, *arguments)

    def remove(self, key):
        """Remove a key from every node."""
        self._ask(Delete(key))

    def read(self, key):
        """Return what the nodes have under a key."""
        return self._ask(Get(key))

    def _ask(self, command):
        members = self._twin._cluster.members.values()
        deadline = time.monotonic() + 10
        if hasattr(self.client, "twin"):

            async def ask():
                return [await member.backend.execute(command, deadline) for member in members]

            return self.client.loop.run_until_complete(ask())
        return [member.backend.execute(command, deadline) for member in members]

    def cached(self, **terms):
        """Return a cached function that counts its calls, to be called as if it blocked."""
        return Function(self, {"ttl": 60.0, "wait": WAIT, "jitter": 0.0, **terms})


class Function:
    """A cached function of no arguments, whose value is the number of its calls."""

    def __init__(self, cache, terms):
        self.calls = 0
        self._client = cache.client
        self._loop = getattr(cache.client, "loop", None)
        decorate = self._client.cached(namespace="writers", **terms)
        if self._loop is None:

            def count():
                self.calls += 1
                return self.calls

            self.cached = decorate(count)
        else:

            async def count():
                self.calls += 1
                return self.calls

            self.cached = decorate(count)

    def __call__(self):
        """Call it."""
        return self.do("__call__")

    def do(self, name, *arguments):
        """Call a method of the cached function."""
        done = getattr(self.cached, name)(*arguments)
        return done if self._loop is None else self._loop.run_until_complete(done)


def reserved_keys():
    """Return all keys of our own that the functions of these tests use, by what a memory node is asked."""
    found = set()
    for terms in TERMS.values():
        asked = set()
        client = make_client("blocking", "memory://a,b,c")
        for member in client._cluster.members.values():
            member.backend = Recording(member.backend, asked)
        function = Cache("memory", client, []).cached(**terms)
        for _ in range(2):
            function()
            time.sleep(0.06)  # what lives for 0.05 s is stale then
        function.do("invalidate")
        client.invalidate_tag("t")
        with client.lock("writers"):
            pass
        found |= asked
        asked.clear()
        function.do("invalidate_all")  # behind all else, for it changes the names of values
        found |= asked
        client.close()
    return sorted(key for key in found if key.startswith(RESERVED))


class Recording:
    """A backend that notes the keys it is asked for."""

    def __init__(self, backend, keys):
        self._backend = backend
        self._keys = keys

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def execute(self, command, deadline):
        """Note the command's keys, and do it."""
        self._note(command)
        return self._backend.execute(command, deadline)

    def begin(self, command, deadline):
        """Note the command's keys, and start it."""
        self._note(command)
        return self._backend.begin(command, deadline)

    def _note(self, command):
        keys = [getattr(command, "key", b""), *getattr(command, "keys", ())]
        self._keys.update([*keys, *(key for key, _ in getattr(command, "items", ()))])


KEYS = reserved_keys()
# Names that are no keys of a cached function: hashed and escaped keys of callers, that of a ping, those
# of clients whose keys can be cleared, and those that a stand-in keeps, which have these behind theirs.
OTHERS = {b"h:", b"k:", b"ping", b"c:", b"n:", b"f:"}


def test_every_reserved_key_is_planted():
    """A new kind of reserved key must be planted here, or declared to be none of a function's."""
    found = set()
    for path in Path(shardcache.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r'RESERVED \+ b"([^"]+)"', path.read_text(encoding="utf-8")))
    kinds = {name.encode() for name in found}
    met = {kind for kind in kinds if any(key.startswith(RESERVED + kind) for key in KEYS)}
    assert kinds - met == OTHERS
    assert len(KEYS) >= 5


def assert_recovers(function, *, name):
    """See that calls end in time with a value that the function gave, and that a value is kept again."""
    for _ in range(CALLS):
        began = time.monotonic()
        value = function()
        assert time.monotonic() - began < WAIT + 2 * TIMEOUT + SLACK, name
        assert type(value) is int, name
        assert 1 <= value <= function.calls, name


def kinds_of(cache, names=PLANTED):
    """Return what can be planted on nodes of a kind, each as a function of the key."""
    planted = {name: lambda key, payload=PLANTED[name]: cache.plant(key, payload) for name in names}
    if cache.kind == "redis":
        planted |= {
            name: lambda key, words=words: cache.plant_type(key, *words)
            for name, words in OF_REDIS.items()
        }
    return planted


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.decode().removeprefix("~sc:"))
def test_no_planted_key_delays_calls_for_long(cache, key, terms):
    """Each call ends in time, and a value stored before is not lost."""
    function = cache.cached(**TERMS[terms])
    for name, plant in kinds_of(cache, BESIDE).items():
        function.do("invalidate")
        plant(key)
        assert_recovers(function, name=name)
        cache.remove(key)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("terms", ["plain", "shard", "lock", "stale", "tags", "result tags"])
def test_no_planted_value_delays_calls_for_long(cache, terms):
    """Afterwards the value is recomputed and stored again."""
    function = cache.cached(**{**TERMS[terms], "ttl": 60.0})
    key = function.do("key_for").encode()
    for name, plant in kinds_of(cache).items():
        plant(key)
        began = time.monotonic()
        value = function()
        assert time.monotonic() - began < WAIT + 2 * TIMEOUT + SLACK, name
        if type(value) is not int or not 1 <= value <= function.calls:
            continue  # it was planted as a value, and is read as one
        for _ in range(CALLS):
            function()
        calls = function.calls
        if name in OF_REDIS:  # another program's: it is left alone, and nothing is kept meanwhile
            cache.remove(key)
            calls = function()
        assert function() == function() == calls, name
        assert function.calls == calls, name


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("terms", ["plain", "stale", "tags", "result tags"])
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.decode().removeprefix("~sc:"))
def test_a_yes_of_an_invalidation_is_true(cache, key, terms):
    """After it no older value is served, whatever was planted."""
    function = cache.cached(**{**TERMS[terms], "ttl": 60.0})
    forget = {
        "invalidate": lambda: function.do("invalidate"),
        "invalidate_all": lambda: function.do("invalidate_all"),
    }
    if "tags" in terms:
        forget["invalidate_tag"] = lambda: cache.client.invalidate_tag("t")
    for name, plant in kinds_of(cache, BESIDE).items():
        for how, act in forget.items():
            function()
            plant(key)
            before = function.calls
            try:
                yes = act()
            except ShardCacheError:
                yes = False
            if yes:
                assert function() > before, (name, how)
        cache.remove(key)


@pytest.mark.parametrize("name", BESIDE)
def test_a_yes_of_clear_is_true(cache, mode, name):
    """After it no older value is read, whatever was planted in the place of the mark."""
    client = make_client(mode, cache.client.nodes, timeout=TIMEOUT, clearable=True)
    if cache.kind != "memory":  # whose nodes are each client's own
        cache.plant(CLEARED + KeySpace("").canonical(b""), PLANTED[name])
    assert client.set("k", 1)
    began = time.monotonic()
    yes = client.clear()
    assert time.monotonic() - began < 2 * TIMEOUT + SLACK
    assert client.get("k") == (None if yes else 1)
    client.close()


@pytest.mark.slow
def test_a_planted_mark_of_a_refresh_keeps_no_old_value_for_ever(cache):
    """A stale value is refreshed once no honest refresh could still be running."""
    patient = LockPolicy(ttl=2.0 if cache.kind == "memcached" else 0.2, renew=False)
    function = cache.cached(ttl=0.05, stale=300.0, lock=patient, error_backoff=0.0)
    (mark,) = [key for key in KEYS if b"r:" in key]
    assert function() == 1
    time.sleep(0.06)
    cache.plant(mark, (MARK_FLAGS, b"x" * 16))
    end = time.monotonic() + 30.0
    while function() == 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert function.calls == 2


def test_a_refresh_is_overdue_only_when_all_tries_were_refused():
    """A process that wins now and then, or tries seldom, knows of no hanging holder."""
    gate = RefreshGate()
    assert not gate.back_off(b"k", 0.0, 10.0)
    assert not gate.back_off(b"k", 9.0, 10.0)
    assert gate.back_off(b"k", 10.5, 10.0)
    gate.clear(b"k")
    assert not gate.back_off(b"k", 11.0, 10.0)
    assert not gate.back_off(b"k", 30.0, 10.0)
    assert not gate.back_off(b"other", 39.0, 10.0)
