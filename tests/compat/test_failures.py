"""Servers that fail: what callers see, and what is counted and logged when they see nothing."""

from __future__ import annotations

import logging
import socket

import pytest
from pymemcache.client.hash import HashClient as TheirHashClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnknownError,
)
from pymemcache.serde import pickle_serde

from shardcache import NodeEjected, NodeFailed, OperationFinished
from shardcache.compat.pymemcache import HashClient, MemcacheUnavailableError
from shardcache.compat.pymemcache.errors import translate
from shardcache.errors import (
    ConnectTimeoutError,
    DecodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    NotACounterError,
    PartialFailureError,
    PoolTimeoutError,
    TooManyConnectionsError,
    ValueTooLargeError,
)
from shardcache.testing.waiting import eventually

KEYS = [f"k{number}" for number in range(60)]
DEFAULT = object()


@pytest.fixture
def half(make_memcached):
    """Return a live server, a dead one, and the keys of each."""
    alive, dead = make_memcached(), make_memcached()
    hosts = [(server.host, server.port) for server in (alive, dead)]
    place = TheirHashClient(hosts).hasher.get_node
    lost = [key for key in KEYS if place(key) == "{}:{}".format(*hosts[1])]
    dead.stop()
    assert 0 < len(lost) < len(KEYS)
    return hosts, [key for key in KEYS if key not in lost], lost


READS = {
    "get": (lambda c, k: c.get(k, DEFAULT), DEFAULT),
    "gets": (lambda c, k: c.gets(k, DEFAULT, 7), (DEFAULT, 7)),
    "get_many": (lambda c, k: c.get_many([k]), {}),
    "gets_many": (lambda c, k: c.gets_many([k]), {}),
}
WRITES = {
    "set": (lambda c, k: c.set(k, 1), False),
    "add": (lambda c, k: c.add(k, 1), False),
    "replace": (lambda c, k: c.replace(k, 1), False),
    "append": (lambda c, k: c.append(k, b"v"), False),
    "prepend": (lambda c, k: c.prepend(k, b"v"), False),
    "cas": (lambda c, k: c.cas(k, 1, b"1"), False),
    "touch": (lambda c, k: c.touch(k), False),
    "delete": (lambda c, k: c.delete(k), False),
    "delete_many": (lambda c, k: c.delete_many([k]), True),
    "incr": (lambda c, k: c.incr(k, 1), False),
    "decr": (lambda c, k: c.decr(k, 1), False),
    "set_many": (lambda c, k: c.set_many({k: 1}), "the key"),
    "flush_all": (lambda c, _: c.flush_all(), None),
}
CALLS = {**READS, **WRITES}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("noreply", [False, True])
def test_with_ignore_exc_a_dead_server_is_what_theirs_returns(half, noreply, name):
    """A miss, a `False`, or the keys that could not be stored; with or without an answer to wait for."""
    hosts, _, (key, *_) = half
    call, expected = CALLS[name]
    client = HashClient(hosts, ignore_exc=True, default_noreply=noreply, timeout=10)
    assert call(client, key) == ([key] if expected == "the key" else expected)
    if name not in {"gets", "set_many"}:  # see the tests of their faults
        theirs = TheirHashClient(hosts, ignore_exc=True, default_noreply=noreply, timeout=10)
        assert call(theirs, key) == expected
        theirs.close()
    client.close()


@pytest.mark.parametrize("name", CALLS)
def test_without_ignore_exc_a_dead_server_is_an_error(half, name):
    """It is caught as `OSError` and as `MemcacheError`, each time: no call reads the outage as a miss."""
    hosts, _, (key, *_) = half
    client = HashClient(hosts, default_noreply=True, timeout=10)
    for kind in (OSError, MemcacheError, ConnectionError, MemcacheUnavailableError):
        with pytest.raises(kind, match=r"127\.0\.0\.1:"):
            CALLS[name][0](client, key)
    client.close()


def test_the_other_servers_go_on(half):
    """What the live server has is read and written, in batches too."""
    hosts, kept, lost = half
    client = HashClient(hosts, serde=pickle_serde, ignore_exc=True, timeout=10)
    assert sorted(client.set_many(dict.fromkeys(KEYS, 1))) == sorted(lost)
    assert client.get_many(KEYS) == dict.fromkeys(kept, 1)
    assert client.gets_many(KEYS).keys() == set(kept)
    client.close()


def test_an_error_of_a_batch_names_the_server(half):
    """Without `ignore_exc` a batch raises one error, of the kind that a single call raises."""
    hosts, _, _ = half
    client = HashClient(hosts, timeout=10)
    for call in (client.get_many, client.gets_many, client.delete_many):
        with pytest.raises(MemcacheUnavailableError, match=f"{hosts[1][1]}: "):
            call(KEYS)
    with pytest.raises(MemcacheUnavailableError, match=f"{hosts[1][1]}: "):
        client.set_many(dict.fromkeys(KEYS, 1))
    client.close()


def test_no_key_of_a_batch_is_forgotten(half):
    """A server that failed is not asked for the rest of its keys; they have its error, the others values."""
    hosts, kept, lost = half
    client = HashClient(hosts, timeout=10)
    with pytest.raises(MemcacheUnavailableError):
        client.set_many(dict.fromkeys(KEYS, b"v"))
    with pytest.raises(PartialFailureError) as raised:
        client._client.gets_many(KEYS)
    assert raised.value.failed.keys() == set(lost)
    assert {key: value for key, (value, _) in raised.value.found.items()} == dict.fromkeys(
        kept, b"v"
    )
    client.close()


def test_swallowed_errors_are_counted_and_observed(half):
    """Nothing fails in silence: counters by server, and events."""
    hosts, kept, lost = half
    events = []

    class Watcher:
        def node_failed(self, event: NodeFailed) -> None:
            events.append(event)

        def node_ejected(self, event: NodeEjected) -> None:
            events.append(event)

    client = HashClient(hosts, ignore_exc=True, timeout=10, observers=[Watcher()])
    for key in (kept[0], lost[0], lost[1]):
        client.get(key)
    alive, dead = (client.counters()["{}:{}".format(*host)] for host in hosts)
    assert (alive["calls"], alive["swallowed_errors"]) == (1, 0)
    assert (dead["refused_calls"], dead["errors"], dead["swallowed_errors"]) == (1, 2, 2)
    assert sum(isinstance(event, NodeEjected) for event in events) == 1
    assert all(event.swallowed for event in events if isinstance(event, NodeFailed))
    client.close()


def test_observers_hear_of_each_operation(make):
    """An observer of operations hears of a `gets_many` as of any other call."""
    heard = []

    class Watcher:
        def operation_finished(self, event: OperationFinished) -> None:
            heard.append((event.name, event.keys, event.hits))

    client = make("ours", observers=[Watcher()])
    client.set_many(dict.fromkeys(KEYS, "v"))
    assert client.gets_many([*KEYS, "missing"]).keys() == set(KEYS)
    assert heard == [("set_many", 60, 0), ("gets_many", 61, 60)]


def test_a_server_that_comes_back_is_asked_again(make_memcached):
    """Health decides when, not a setting; nothing has to be called."""
    server = make_memcached()
    client = HashClient(
        [(server.host, server.port)], ignore_exc=True, default_noreply=False, timeout=10
    )
    server.kill()
    assert client.set("k", "v") is False
    server.restart()
    eventually(lambda: client.set("k", "v"), within=30)
    client.close()


def test_a_refusal_without_a_caller_that_waits_is_logged(make, hosts, caplog):
    """With `noreply` a value that is too large raises nothing, as with theirs, but is not lost in silence."""
    client = make("ours", hosts[:1], default_noreply=True)
    large = b"v" * 2_000_000
    with caplog.at_level(logging.WARNING, "shardcache"):
        assert client.set("k", large) is False
        assert client.set_many({"k": large, "l": b"v"}) == ["k"]
    (line,) = caplog.messages
    assert "the value is too large for the server" in line
    (counted,) = client.counters().values()
    assert counted["swallowed_errors"] == 2
    for write in (
        lambda: client.set("k", large, noreply=False),
        lambda: client.set_many({"k": large}, noreply=False),
    ):
        with pytest.raises(MemcacheServerError, match="too large"):
            write()


def test_no_servers_are_no_answer():
    """A list may be empty at first; `ignore_exc` decides what a call is until then."""
    with pytest.raises(MemcacheError, match="there are no servers"):
        HashClient([]).get("k")
    client = HashClient([], ignore_exc=True)
    assert client.get("k", 7) == 7
    assert client.set("k", "v") is False
    assert client.set_many({"k": "v"}) == ["k"]
    assert (client.get_many(["k"]), client.stats(), client.counters()) == ({}, {}, {})


@pytest.mark.parametrize(
    ("ours", "kinds"),
    [
        (NodeTimeoutError, (TimeoutError, socket.timeout, OSError)),
        (ConnectTimeoutError, (TimeoutError,)),
        (PoolTimeoutError, (TimeoutError,)),
        (NodeUnavailableError, (OSError, MemcacheServerError)),
        (TooManyConnectionsError, (OSError, MemcacheServerError)),
        (NotACounterError, (MemcacheClientError,)),
        (ValueTooLargeError, (MemcacheServerError,)),
        (NodeRefusedError, (MemcacheServerError,)),
        (NodeProtocolError, (MemcacheUnknownError,)),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_each_error_is_one_that_pymemcache_s_callers_catch(ours, kinds):
    """It has the text of ours, which names the server."""
    theirs = translate(ours("did this", "10.0.0.1:11211"))
    assert all(isinstance(theirs, kind) for kind in kinds)
    assert str(theirs) == "10.0.0.1:11211: did this"


def test_a_decode_error_without_a_cause_is_itself():
    """There is nothing of the serde to raise in its place."""
    error = DecodeError("an envelope that does not hold a value")
    assert translate(error) is error
