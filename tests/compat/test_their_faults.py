"""Faults of pymemcache's `HashClient` 4.0.0 that ours does not repeat; the guide lists them.

Each test shows the fault in theirs first: when a release mends it, the test tells to change the page.
"""

from __future__ import annotations

import inspect
import signal
import threading
import time

import pytest
from pymemcache.client.hash import HashClient as TheirHashClient
from pymemcache.serde import pickle_serde

from shardcache.compat.pymemcache import HashClient, MemcacheUnavailableError
from shardcache.testing.waiting import eventually


class Interrupt(BaseException):
    """What a signal raises, as a worker's time limit or a greenlet's timeout does."""


def interrupt(server, call):
    """Interrupt a call while its server is silent; then let the server answer."""

    def on_alarm(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    server.pause()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.resume()


@pytest.fixture
def dead(make_memcached):
    """Return a server that has ended."""
    server = make_memcached()
    server.stop()
    return server.host, server.port


def test_an_interrupted_call_leaves_its_answer_to_the_next(make, make_memcached):
    """Theirs returns one counter's number for another, and raises for a value that was not asked for."""
    server = make_memcached()
    host = [(server.host, server.port)]
    for whose, expected in (("theirs", 6), ("ours", 101)):
        client = make(whose, host, serde=pickle_serde)
        client.set_many({"a": 5, "b": 100})
        interrupt(server, lambda client=client: client.incr("a", 1))
        assert client.incr("b", 1) == expected
    theirs, ours = make("theirs", host), make("ours", host)
    for client in (theirs, ours):
        interrupt(server, lambda client=client: client.get("a"))
    with pytest.raises(KeyError):
        theirs.get("b")
    assert ours.get("b") == b"101"


def test_set_many_calls_values_stored_that_are_not(dead):
    """With `ignore_exc` theirs returns no key of a dead server."""
    for kind, failed in ((TheirHashClient, []), (HashClient, ["k"])):
        client = kind([dead], ignore_exc=True, default_noreply=False, timeout=10)
        assert client.set_many({"k": 1}) == failed
        client.close()


def test_gets_of_a_dead_server_is_no_pair(dead):
    """With `ignore_exc` theirs returns `None`, which `value, token = …` cannot unpack."""
    for kind, answer in ((TheirHashClient, None), (HashClient, (None, None))):
        client = kind([dead], ignore_exc=True, timeout=10)
        assert client.gets("k") == answer
        client.close()


def test_an_outage_is_a_miss_after_the_first_errors(dead):
    """Without `ignore_exc` theirs raises, and for a second after that returns defaults."""
    theirs = TheirHashClient([dead], timeout=10, retry_timeout=60)
    with pytest.raises(OSError, match="refused"):
        theirs.get("k")
    assert theirs.get("k") is None
    assert theirs.set("k", 1) is False
    ours = HashClient([dead], timeout=10)
    for _ in range(5):
        with pytest.raises(MemcacheUnavailableError, match="refused"):
            ours.get("k")


def test_a_server_that_works_cannot_be_removed(make, hosts):
    """Theirs raises `KeyError`, unless the server had failed before."""
    with pytest.raises(KeyError):
        make("theirs").remove_server(hosts[0])
    ours = make("ours")
    ours.remove_server(hosts[0])
    assert len(ours.counters()) == len(hosts) - 1


def test_a_removed_server_comes_back(make, hosts):
    """Theirs takes it for a dead one, and asks it again after `dead_timeout`."""
    for whose, count in (("theirs", 3), ("ours", 2)):
        client = make(whose, dead_timeout=0)
        if whose == "theirs":
            client._mark_failed_server(hosts[0])  # else it raises
        client.remove_server(hosts[0])
        time.sleep(0.01)
        client.get("k")
        nodes = client.hasher.nodes if whose == "theirs" else client.counters()
        assert len(nodes) == count


def test_a_write_that_was_confirmed_is_undone(make, make_memcached):
    """Theirs stores on another server while one is silent, and reads the old value when that is back."""
    servers = [make_memcached(), make_memcached()]
    hosts = [(server.host, server.port) for server in servers]
    owner = TheirHashClient(hosts).hasher.get_node("k")
    (server,) = [each for each in servers if owner.endswith(f":{each.port}")]
    settings = {"ignore_exc": True, "retry_attempts": 0, "dead_timeout": 0.5}
    confirmed = {}
    for whose in ("theirs", "ours"):
        client = make(whose, hosts, **settings, timeout=0.3)
        patient = make(whose, hosts)
        patient.set("k", "old")
        server.pause()
        client.get("k")
        confirmed[whose] = client.set("k", "new")
        server.resume()
        if whose == "theirs":
            eventually(lambda client=client: client.get("k") == b"old", within=30)
    assert confirmed == {"theirs": True, "ours": False}


def test_a_pool_forgets_the_encoding_and_the_defaults(make):
    """With `use_pooling` theirs encodes ASCII only, and `gets` takes no default."""
    theirs, ours = (make(whose, use_pooling=True, encoding="utf8") for whose in ("theirs", "ours"))
    with pytest.raises(Exception, match="binary-safe"):
        theirs.set("k", "ключ")
    with pytest.raises(TypeError):
        theirs.gets("missing", 7)
    assert ours.set("k", "ключ") is True
    assert ours.gets("missing", 7) == (7, None)


def test_threads_mix_up_their_answers(make):
    """Without `use_pooling` theirs has one connection for all threads; ours has a pool."""
    theirs = make("theirs")
    assert not any(hasattr(client, "client_pool") for client in theirs.clients.values())
    ours = make("ours", serde=pickle_serde)
    keys = [f"k{number}" for number in range(50)]
    ours.set_many({key: key for key in keys})
    wrong = []

    def read():
        wrong.extend(key for _ in range(20) for key in keys if ours.get(key) != key)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_silent_server_blocks_for_ever():
    """Without a `timeout` theirs has none; ours has half a second."""
    assert inspect.signature(TheirHashClient).parameters["timeout"].default is None
    assert TheirHashClient(["10.0.0.1"]).default_kwargs["timeout"] is None
    assert HashClient(["10.0.0.1"])._client._settings.timeout.call == 0.5


def test_many_deletes_are_many_round_trips(make, hosts):
    """Theirs deletes key by key, even of one server; ours sends one batch to each server."""
    keys = [f"k{number}" for number in range(30)]
    theirs, ours = make("theirs", hosts[:1]), make("ours", hosts[:1])
    client = next(iter(theirs.clients.values()))
    calls = []
    client.delete = lambda key, **_: calls.append(key)
    theirs.delete_many(keys)
    assert len(calls) == len(keys)
    ours.delete_many(keys)
    (counted,) = ours.counters().values()
    assert counted["calls"] == 1
