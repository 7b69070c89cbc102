"""A failing node is ejected, its keys read as misses, and it comes back by itself."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from backends.fakes import fake_node
from operations.harness import EventLog
from shardcache import (
    AsyncClient,
    Client,
    ConnectTimeoutError,
    NodeEjected,
    NodeRestored,
    NodeUnavailableError,
    PoolTimeoutError,
)
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually


def quantile(samples, share):
    """Return the sample below which `share` of them lie."""
    return sorted(samples)[int(share * len(samples))]


def test_a_stopped_node_costs_three_timeouts_and_comes_back(make_memcached):
    """Ejected after three timeouts of 100 ms; then refused at once; restored when it answers."""
    server = make_memcached()
    log = EventLog(NodeEjected, NodeRestored)
    client = Client(server.url, timeout=0.1, observers=[log])
    eventually(lambda: client.set("k", 1), within=20)  # so that no call before was late
    server.pause()
    calls = []  # the seconds that each took
    while not client.ejected:
        started = time.monotonic()
        assert client.get("k") is None
        calls.append(time.monotonic() - started)
    assert len(calls) >= 3
    # One that was held up by other work of the machine says nothing of the node.
    assert sum(0.1 <= seconds < 0.15 for seconds in calls) <= 3
    assert repr(client) == "<Client [1 node, 1 ejected] rendezvous>"
    (figures,) = client.stats().values()
    assert figures.circuit in ("open", "probing")
    server.resume()
    eventually(lambda: not client.ejected, within=7)
    assert client.get("k") == 1
    (figures,) = client.stats().values()
    assert (figures.circuit, figures.client["ejections"]) == ("closed", 1)
    assert log.types() == [NodeEjected, NodeRestored]
    assert log.events[1].seconds > 0.2
    client.close()


def test_a_stopped_node_comes_back_to_tasks(make_memcached):
    """The same by a task of the loop, which ends with the client."""
    server = make_memcached()

    async def main():
        async with AsyncClient(server.url, timeout=0.1) as client:
            await client.set("k", 1)
            server.pause()
            while not client.ejected:
                assert await client.get("k") is None
            await asyncio.sleep(0.5)
            assert client.ejected
            server.resume()
            for _ in range(700):
                if not client.ejected:
                    break
                await asyncio.sleep(0.01)
            assert await client.get("k") == 1
            server.pause()
            while not client.ejected:
                await client.get("k")
        assert asyncio.all_tasks() == {asyncio.current_task()}
        server.resume()

    asyncio.run(main())


def test_calls_to_an_ejected_node_are_answered_at_once(mode, make_memcached):
    """In under 0.1 ms, and counted as refused, whatever the others do."""
    dead, well = make_memcached(), make_memcached()
    client = make_client(mode, [dead.url, well.url], on_error="miss", timeout=1)
    keys = [f"k{number}" for number in range(400)]
    client.set_many(dict.fromkeys(keys, "v"))
    dead.kill()
    lost = {key for key in keys if client.node_for(key).address.port == dead.port}
    assert client.get(next(iter(lost))) is None
    (node,) = client.ejected
    assert node.address.port == dead.port
    assert client.get_many(keys) == dict.fromkeys(set(keys) - lost, "v")
    assert client.set_many(dict.fromkeys(lost, 1)) == list(lost)
    samples = []
    direct = client if mode == "blocking" else client.twin

    async def measure():
        for key in lost:
            started = time.perf_counter()
            answer = direct.get(key)
            assert (answer if mode == "blocking" else await answer) is None
            samples.append(time.perf_counter() - started)

    if mode == "blocking":
        with pytest.raises(StopIteration):
            measure().send(None)
    else:
        client.loop.run_until_complete(measure())
    assert quantile(samples, 0.5) < 1e-4
    assert client.stats()[node.name].client["refused_calls"] >= len(lost)
    client.close()


def test_a_refused_call_says_why(mode, make_memcached):
    """Under `on_error="raise"` the error names the node and why it was ejected."""
    server = make_memcached()
    client = make_client(mode, server.url, on_error="raise", timeout=1)
    server.kill()
    with pytest.raises(NodeUnavailableError, match="cannot be reached"):
        client.get("k")
    with pytest.raises(NodeUnavailableError, match=r"ejected: .*cannot be reached"):
        client.get("k")
    client.close()


def test_a_restored_node_is_asked_over_a_new_connection(mode, make_memcached):
    """No connection of before the ejection is ever used again: it may hold late replies."""
    server = make_memcached()
    client = make_client(mode, server.url, timeout=0.2)
    client.set_many({f"k{number}": number for number in range(50)})
    (member,) = client._cluster.members.values()
    server.pause()
    while not client.ejected:
        client.get("k1")
    before = member.backend.dialed
    server.resume()
    eventually(lambda: client.ping() and not client.ejected, within=7)
    assert member.backend.dialed > before
    for number in range(50):
        assert client.get(f"k{number}") == number
    client.close()


def test_those_who_wait_for_a_connection_are_sent_away(make_memcached):
    """When a node is ejected, calls that wait for one of its connections end."""
    server = make_memcached()
    client = Client(server.url, on_error="raise", timeout=5, pool_size=1)
    client.set("k", 1)
    (member,) = client._cluster.members.values()
    lent = member.backend.pool.get_idle()
    threading.Timer(0.2, member.backend.eject).start()
    started = time.monotonic()
    with pytest.raises(NodeUnavailableError, match="ejected"):
        client.get("k")
    assert time.monotonic() - started < 2
    member.backend.pool.put(lent)
    client.close()


def test_a_pool_that_ran_out_ejects_no_node(make_memcached):
    """Waiting for one's own connections says nothing about the node."""
    server = make_memcached()
    client = Client(server.url, on_error="raise", timeout=0.05, pool_size=1)
    client.set("k", 1)
    (member,) = client._cluster.members.values()
    lent = member.backend.pool.get_idle()
    for _ in range(30):
        with pytest.raises(PoolTimeoutError):
            client.get("k")
    assert client.ejected == ()
    member.backend.pool.put(lent)
    assert client.get("k") == 1
    client.close()


def test_accepting_a_connection_is_no_answer():
    """A stopped process still accepts connections: only a valid reply to a probe restores it."""
    dialed = []

    def behave(connection, number):
        dialed.append(number)
        while connection.recv(4096):
            continue

    with fake_node(behave) as address:
        client = Client(f"memcached://{address}", timeout=0.05)
        while not client.ejected:
            client.get("k")
        before = len(dialed)
        eventually(lambda: len(dialed) >= before + 2, within=10)
        assert client.ejected
        client.close()


def test_a_read_only_node_is_not_restored_by_reads(make_redis):
    """A Redis that has become a replica answers reads, but is restored when it takes writes."""
    server = make_redis()
    client = Client(server.url, on_error="miss", timeout=1)
    client.set("k", 1)
    server.ask(b"REPLICAOF 127.0.0.1 1\r\n", b"+OK\r\n")
    assert client.set("k", 2) is False
    assert client.ejected
    assert client.get("k") is None  # its value can no more be overwritten or deleted
    time.sleep(0.8)
    assert client.ejected
    server.ask(b"REPLICAOF NO ONE\r\n", b"+OK\r\n")
    eventually(lambda: not client.ejected, within=7)
    assert client.set("k", 3)
    client.close()


def test_a_forked_child_probes_by_itself(make_memcached):
    """A child inherits what is ejected, but no thread: its own prober restores the node."""
    server = make_memcached()
    client = Client(server.url, timeout=0.3)
    server.kill()
    client.get("k")
    assert client.ejected
    server.restart()
    pid = os.fork()
    if pid == 0:
        restored = False
        for _ in range(600):
            restored = restored or client.set("child", 1)
            if restored:
                break
            time.sleep(0.01)
        os._exit(0 if restored else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    eventually(lambda: not client.ejected, within=7)
    client.close()


def test_nothing_goes_on_behind_a_closed_client(make_memcached):
    """The prober of a client ends with it, closed or forgotten."""
    server = make_memcached()
    server.kill()
    for closing in (True, False):
        others = set(threading.enumerate())
        client = Client(server.url, timeout=0.3)
        client.get("k")
        (prober,) = set(threading.enumerate()) - others
        assert prober.name == "shardcache prober"
        if closing:
            client.close()
        del client
        gc.collect()
        prober.join(5)
        assert not prober.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["memcached", "redis"])
@pytest.mark.parametrize("call", ["get_many", "set_many", "delete_many"])
def test_a_node_that_answers_no_batch_is_ejected(request, mode, kind, call):
    """A batch that is late says as much as any other call, on either client."""
    server = request.getfixturevalue(f"make_{kind}")()
    client = make_client(mode, server.url, timeout=0.1)
    batch = {"a": 1, "b": 2} if call == "set_many" else ["a", "b"]
    client.set_many({"a": 1})
    server.pause()
    before = next(iter(client.stats().values())).client["calls"]
    for _ in range(3):
        getattr(client, call)(batch)
    assert [node.name for node in client.ejected] == [client.nodes[0].name]
    (member,) = client_members(client)
    assert member.errors >= 3
    assert member.answered + member.errors - before <= 4
    server.resume()
    client.close()


def client_members(client):
    """Return what a client knows of its nodes."""
    cluster = getattr(client, "twin", client)._cluster
    return cluster.members.values()


async def test_a_reply_has_the_time_at_which_it_came(make_memcached):
    """A node that answers at once is not said to be as slow as one that does not."""
    well, stopped = make_memcached(), make_memcached()
    async with AsyncClient([stopped.url, well.url], timeout=0.3) as client:
        await client.ping()
        stopped.pause()
        seconds = await client.ping()
        stopped.resume()
    assert seconds[f"127.0.0.1:{well.port}"] < 0.15


async def test_one_lost_connection_is_one_loss(make_memcached):
    """However many calls were on their way over it."""
    server = make_memcached()
    async with AsyncClient(server.url, timeout=2.0) as client:
        await client.set("k", 1)
        server.pause()
        calls = [asyncio.create_task(client.set(f"k{n}", n)) for n in range(3)]
        await asyncio.sleep(0.05)
        server.kill()
        assert await asyncio.gather(*calls) == [False] * 3
        assert client.ejected == ()
        server.restart()
        assert await client.set("k", 1) is True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_process_that_can_start_no_thread_ejects_no_node(monkeypatch, host):
    """A failing node is a miss all the same, also while the interpreter ends."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with Client(f"memcached://{host}:1") as client:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert client.get("k", "miss") == "miss"
            assert client.get("k", "miss") == "miss"
        assert client.get("k", "miss") == "miss"


def test_a_dial_in_too_little_time_ejects_no_node(make_memcached):
    """A call may have too little time left to connect."""
    server = make_memcached()
    with Client(server.url, timeout=0.5) as client:
        (member,) = client_members(client)
        record_failure, began = client._cluster.ejector.record_failure, time.monotonic()
        error = ConnectTimeoutError("could not be reached in time", member.node.name)
        record_failure(member, error, began, 0.015)
        assert client.ejected == ()
        record_failure(member, ConnectTimeoutError("again", member.node.name), began, 0.5)
        assert len(client.ejected) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_password_is_logged_and_rarely_retried(make_redis, caplog, mode):
    """One line in the log, and a dial now and then."""
    server = make_redis("--requirepass", "right")
    client = make_client(mode, server.url.replace("redis://", "redis://:wrong@"), timeout=1.0)
    for number in range(100):
        assert client.get(f"k{number}", "miss") == "miss"
    (member,) = client_members(client)
    assert member.backend.dialed + member.errors - member.refused <= 3
    (record,) = caplog.records
    assert " ejected: " in record.getMessage()
    assert "refused the greeting" in record.getMessage()
    assert "wrong" not in record.getMessage()
    client.close()
