"""A node returns with its memory: no key whose write failed meanwhile has an old value."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import pytest

from operations.harness import EventLog
from shardcache import (
    AsyncClient,
    Client,
    DeletesOverflowed,
    DeletesReplayed,
    LockError,
    NodeEjected,
    NodeError,
    NodeRestored,
    PartialFailureError,
)
from shardcache.operations.cluster import pending
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

TIMEOUT = 0.25
BACK = 12.0  # seconds until a node is asked again, on a busy machine


@pytest.fixture(params=["memcached", "redis"])
def server(request):
    """Return a server of each kind."""
    return request.getfixturevalue(f"make_{request.param}")()


def stop_and_miss(server, client):
    """Stop a server, and read until it is ejected."""
    server.pause()
    while not client.ejected:
        attempt(client.get, "any")


def resume_and_wait(server, client):
    """Resume a server, and wait until it is asked again."""
    server.resume()
    eventually(lambda: not client.ejected, within=BACK)


def attempt(call, *arguments):
    """Make a call that may raise a node's error."""
    with suppress(NodeError, PartialFailureError):
        call(*arguments)


@pytest.mark.parametrize("warm_for", [0, 60])
def test_a_node_keeps_its_pending_deletes_under_other_options(mode, server, warm_for):
    """It is another member of the client, with another health, but the same server."""
    client = make_client(mode, server.url, timeout=TIMEOUT)
    client.set_many({f"k{number}": "old" for number in range(6)})
    stop_and_miss(server, client)
    client.set_many({"k0": "new", "k1": "new"})
    client.delete("k2")
    client.set_nodes([f"{server.url}?max_value_bytes=2000"], warm_for=warm_for)
    resume_and_wait(server, client)
    assert client.get_many(f"k{number}" for number in range(6)) == dict.fromkeys(
        ["k3", "k4", "k5"], "old"
    )
    client.close()


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_what_was_written_meanwhile_is_a_miss(mode, server, on_error):
    """Refused or timed out, one key or many; the keys that nobody wrote are still there."""
    log = EventLog(DeletesReplayed, NodeEjected, NodeRestored)
    client = make_client(
        mode, server.url, timeout=TIMEOUT, on_error=on_error, namespace="shop", observers=[log]
    )
    with Client(server.url, timeout=20, namespace="shop") as other:  # which is never late
        assert other.set_many({f"k{number}": "old" for number in range(20)}) == []
        assert other.set("count", 7)
    server.pause()
    for number in range(4):  # the first of these end in a timeout, the others are refused
        attempt(client.delete, f"k{number}")
    stop_and_miss(server, client)
    for number in range(4, 8):
        attempt(client.set, f"k{number}", "new")
    attempt(client.delete_many, ["k8", "k9"])
    attempt(client.set_many, {"k10": "new", "k11": "new"})
    attempt(client.incr, "count")
    attempt(client.add, "k19", "new")
    (name,) = client.counters()
    assert client.counters()[name]["pending_deletes"] == 13
    resume_and_wait(server, client)
    found = client.get_many([*(f"k{number}" for number in range(20)), "count"])
    assert found == {f"k{number}": "old" for number in range(12, 20)}
    assert client.counters()[name]["pending_deletes"] == 0
    assert log.types() == [NodeEjected, DeletesReplayed, NodeRestored]
    assert log.events[1].keys == 13
    client.close()


def test_the_return_is_logged_with_the_number_of_deletes(server, caplog):
    """One line, as without them."""
    caplog.set_level(logging.INFO, "shardcache")
    with Client(server.url, timeout=TIMEOUT) as client:
        client.set("k", "old")
        stop_and_miss(server, client)
        client.delete("k")
        resume_and_wait(server, client)
    assert "; deleted 1 key(s) there whose writes had failed" in caplog.text


def test_the_names_are_those_on_the_node(mode, server):
    """Of a clearable client they carry a generation."""
    client = make_client(mode, server.url, timeout=TIMEOUT, namespace="shop", clearable=True)
    client.set_many({"a": "old", "b": "old"})
    stop_and_miss(server, client)
    attempt(client.delete, "a")
    resume_and_wait(server, client)
    assert client.get_many(["a", "b"]) == {"b": "old"}
    client.close()


def test_a_tag_that_was_invalidated_meanwhile_is_invalid(server):
    """Its version is deleted on its return."""
    with Client(server.url, timeout=TIMEOUT) as client:
        values = iter(["old", "new"])

        @client.cached(ttl=60, tags=["all"], namespace="read")
        def read():
            return next(values)

        assert read() == "old"
        stop_and_miss(server, client)
        assert client.invalidate_tag("all") is False
        resume_and_wait(server, client)
        assert read() == "new"


def test_a_lock_that_another_client_holds_is_not_deleted(server):
    """Its holder could lose it."""
    with Client(server.url, timeout=TIMEOUT) as client, Client(server.url, timeout=5) as other:
        lease = other.lock("report", ttl=60).acquire()
        client.set("k", "old")
        server.pause()
        while not client.ejected:
            with suppress(LockError):
                client.lock("report", ttl=60).try_acquire()
        client.delete("k")
        resume_and_wait(server, client)
        assert client.get("k") is None
        lease.extend()


def test_the_clients_of_a_process_make_up_for_each_other(server):
    """A write of one of them is deleted before the node is asked for any."""
    with Client(server.url, timeout=TIMEOUT) as client:
        other = make_client("asyncio", server.url, timeout=TIMEOUT)
        client.set_many({"a": "old", "b": "old"})
        stop_and_miss(server, client)
        client.delete("a")
        other.delete("b")
        resume_and_wait(server, client)
        assert client.get_many(["a", "b"]) == {}
        other.close()


def test_an_event_loop_for_each_call_is_no_trouble(server):
    """Nothing depends on the loop of the call that failed."""
    client = AsyncClient(server.url, timeout=TIMEOUT)
    assert asyncio.run(client.set("k", "old"))
    server.pause()
    while not client.ejected:
        asyncio.run(client.delete("k"))
    server.resume()
    eventually(lambda: not client.ejected, within=BACK)
    assert asyncio.run(client.get("k")) is None
    asyncio.run(client.aclose())


@pytest.mark.slow
def test_a_write_that_lands_late_does_not_undo_a_delete(mode, server):
    """It timed out; the node stayed in; the old value is gone soon after."""
    client = make_client(mode, server.url, timeout=0.05)
    direct = Client(server.url, timeout=5)
    value = "old" + "x" * 20_000
    for turn in range(10):
        key = f"k{turn}"
        direct.set(key, "older")
        server.pause()
        assert client.set(key, value) is False
        server.resume()
        if client.delete(key):  # else the node was ejected
            time.sleep(0.3)
            assert direct.get(key) is None
    direct.close()
    client.close()


@pytest.mark.parametrize("on_overflow", ["warn", "flush"])
def test_more_than_can_be_remembered_is_reported(mode, server, monkeypatch, caplog, on_overflow):
    """The node keeps the rest, unless the client wants it emptied."""
    monkeypatch.setattr(pending, "MOST", 5)
    log = EventLog(DeletesOverflowed, DeletesReplayed)
    client = make_client(
        mode, server.url, timeout=TIMEOUT, on_overflow=on_overflow, observers=[log]
    )
    keys = [f"k{number}" for number in range(9)]
    client.set_many(dict.fromkeys(keys, "old"))
    stop_and_miss(server, client)
    for key in keys[:8]:
        client.delete(key)
    resume_and_wait(server, client)
    left = {} if on_overflow == "flush" else dict.fromkeys(keys[5:], "old")
    assert client.get_many(keys) == left
    overflowed, replayed = log.events
    assert (overflowed.kept, replayed.keys) == (5, 5)
    assert replayed.flushed is (on_overflow == "flush")
    assert caplog.text.count("more than 5 writes failed while it was out") == 1
    client.close()
