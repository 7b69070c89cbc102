"""The classic protocol through pymemcache: real servers, a proxy, and servers that misbehave."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.pymemcache.asking import OTHER, TEXT, ask, make_backend
from shardcache.core.commands import (
    Cas,
    Delete,
    DeleteMany,
    FlushAll,
    Get,
    GetMany,
    Gets,
    Incr,
    Ping,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.keys import hash_name
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS
from shardcache.errors import (
    ConfigurationError,
    NodeRefusedError,
    NotACounterError,
    ValueTooLargeError,
)
from shardcache.testing.driving import make_client


def test_stores_reads_and_removes(backend):
    """The commands over one key say what they did."""
    assert ask(backend, Get(b"k")) is None
    assert ask(backend, Set(b"k", TEXT, when=When.PRESENT)) is False
    assert ask(backend, Set(b"k", TEXT, when=When.ABSENT)) is True
    assert ask(backend, Set(b"k", OTHER, when=When.ABSENT)) is False
    assert ask(backend, Get(b"k")) == TEXT
    assert ask(backend, Set(b"k", OTHER, 60)) is True
    assert ask(backend, Get(b"k")) == OTHER
    assert ask(backend, Touch(b"k", 5_000_000)) is True
    assert ask(backend, Touch(b"k", None)) is True
    assert ask(backend, Touch(b"missing", 60)) is False
    assert ask(backend, Delete(b"k")) is True
    assert ask(backend, Delete(b"k")) is False
    assert backend.pool.open == 1


def test_compare_and_set(backend):
    """A swap stores over the value that was read; a token of another backend matches nothing."""
    assert ask(backend, Gets(b"k")) is None
    assert ask(backend, Cas(b"k", TEXT, b"1")) is None
    ask(backend, Set(b"k", OTHER))
    payload, token = ask(backend, Gets(b"k"))
    assert payload == OTHER
    assert ask(backend, Cas(b"k", TEXT, token)) is True
    assert ask(backend, Cas(b"k", OTHER, token)) is False
    for foreign in (12345, b"da39a3ee5e6b4b0d3255bfef95601890afd80709", "text", None):
        assert ask(backend, Cas(b"k", OTHER, foreign)) is False
    assert ask(backend, Get(b"k")) == TEXT


def test_counters_stop_at_zero_and_are_never_created(backend):
    """Counters count, stop at 0, and are never made by counting."""
    assert ask(backend, Incr(b"n", 1)) is None
    ask(backend, Set(b"n", (INTEGER_FLAGS, b"10")))
    assert ask(backend, Incr(b"n", 5)) == 15
    assert ask(backend, Incr(b"n", -100)) == 0
    ask(backend, Set(b"n", (INTEGER_FLAGS, b"%d" % (2**63 - 1))))
    with pytest.raises(NotACounterError, match="cache1"):
        ask(backend, Incr(b"n", 1))
    ask(backend, Set(b"n", TEXT))
    with pytest.raises(NotACounterError, match="cache1"):
        ask(backend, Incr(b"n", 1))


@pytest.mark.parametrize(
    ("value", "delta"), [(2**63 - 1, 1), (2**63 - 1, 2**63 - 1), (2**64 - 1, 1), (2**63, 0)]
)
def test_a_refused_increment_leaves_the_value(backend, value, delta):
    """An increment that is refused leaves the value as it was."""
    ask(backend, Set(b"n", (INTEGER_FLAGS, b"%d" % value)))
    with pytest.raises(NotACounterError, match="cache1"):
        ask(backend, Incr(b"n", delta))
    _, digits = ask(backend, Get(b"n"))
    assert int(digits) == value  # memcached leaves a blank where a digit has gone


def test_many_keys(backend):
    """Batches larger than a part come back whole and in order."""
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(999)]
    keys = [key for key, _ in items]
    assert ask(backend, SetMany(items, 60)) == [True] * len(items)
    assert ask(backend, GetMany([b"no", *keys])) == [None, *(payload for _, payload in items)]
    assert ask(backend, DeleteMany([b"no", *keys])) == [False] + [True] * len(keys)
    for empty in (GetMany([]), SetMany([]), DeleteMany([])):
        assert ask(backend, empty) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, unique=True))
def test_any_bytes_are_a_key(backend, keys):
    """A key that the classic protocol cannot send goes by its hash; no two keys are one."""
    items = [(key, (RAW_FLAGS, key[::-1])) for key in keys]
    assert ask(backend, SetMany(items)) == [True] * len(items)
    assert ask(backend, GetMany(keys)) == [payload for _, payload in items]
    assert ask(backend, DeleteMany(keys)) == [True] * len(items)


def test_plain_keys_are_what_other_clients_see(backend, memcached_servers):
    """A printable key is itself on the server, and another one its hash."""
    ask(backend, SetMany([(b"plain", TEXT), (b"two words", TEXT)]))
    memcached_servers[0].ask(b"get plain\r\n", b"VALUE plain 16 4\r\n")
    memcached_servers[0].ask(b"get %b\r\n" % hash_name(b"two words"), b"VALUE ")


def test_a_value_too_large_is_not_sent(backend):
    """It alone is refused, by our limit or by the server's."""
    large = (RAW_FLAGS, b"x" * (1024 * 1024 + 1))
    with pytest.raises(ValueTooLargeError):
        ask(backend, Set(b"k", large))
    assert backend.pool.open == 0
    above = (RAW_FLAGS, b"x" * (1024 * 1024))  # with its key more than the server takes
    for refused in (large, above):
        first, second, third = ask(backend, SetMany([(b"a", TEXT), (b"b", refused), (b"c", TEXT)]))
        assert (first, third) == (True, True)
        assert isinstance(second, ValueTooLargeError)
        assert ask(backend, GetMany([b"a", b"b", b"c"])) == [TEXT, None, TEXT]


def test_stats_and_flush(backend):
    """The server answers for itself."""
    ask(backend, Set(b"k", TEXT))
    assert ask(backend, Ping()) is True
    figures = ask(backend, ServerStats())
    assert figures["pid"].isdigit()
    assert figures["version"]
    assert all(type(figure) is str for figure in figures.values())
    assert ask(backend, FlushAll()) is True
    assert ask(backend, Get(b"k")) is None


def test_through_a_proxy(make_nutcracker, memcached_servers):
    """Twemproxy forwards what a cache needs, and refuses the rest."""
    nodes = [f"{server.url.partition('://')[2]}:1" for server in memcached_servers]
    pool = {"servers": nodes, "hash": "fnv1a_64", "distribution": "ketama"}
    backend = make_backend(make_nutcracker(pool))
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(300)]
    keys = [key for key, _ in items]
    assert ask(backend, Ping()) is True
    assert ask(backend, SetMany(items)) == [True] * len(items)
    assert ask(backend, GetMany(keys)) == [payload for _, payload in items]
    assert ask(backend, Incr(b"k7", 2)) == 9
    _, token = ask(backend, Gets(b"k1"))
    assert ask(backend, Cas(b"k1", TEXT, token)) is True
    assert ask(backend, Touch(b"k1", 60)) is True
    assert ask(backend, DeleteMany(keys)) == [True] * len(items)
    for command in (ServerStats(), FlushAll()):
        with pytest.raises(NodeRefusedError, match=f"hung up on {type(command).__name__}"):
            ask(backend, command)
    assert ask(backend, Get(b"k1")) is None
    backend.close()


def test_a_proxy_is_not_ejected_for_what_it_does_not_forward(
    make_nutcracker, memcached_servers, mode
):
    """Stats and flush are refused, and the next `get` is served."""
    pool = {"servers": [f"{memcached_servers[0].url.partition('://')[2]}:1"]}
    client = make_client(mode, f"pymemcache://{make_nutcracker(pool).url.partition('://')[2]}")
    client.set("k", 1)
    for _ in range(4):
        (figures,) = client.stats().values()
        assert isinstance(figures.server, NodeRefusedError)
        assert client.flush_all() is False
        assert client.ejected == ()
        assert client.get("k") == 1
    client.close()


@pytest.mark.parametrize("query", ["?max_value_bytes=0", "?max_value_bytes=x", "?timeout=5"])
def test_faults_of_a_url_are_named(query):
    """An impossible option is refused when the node is made, and the node is named."""
    with pytest.raises(ConfigurationError, match="cache1"):
        make_backend(11211, query)
