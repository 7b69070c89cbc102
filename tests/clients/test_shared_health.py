"""The clients of a process share the health of a node."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time

import pytest

from operations.harness import EventLog
from shardcache import AsyncClient, Client, NodeEjected, NodeRestored, NodeTimeoutError
from shardcache.clients import probers as shared
from shardcache.core.timeouts import TimeoutPolicy
from shardcache.operations.cluster.ejection import Ejector
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually


def member_of(client):
    """Return what a client of one node knows of it."""
    (member,) = getattr(client, "twin", client)._cluster.all_members.values()
    return member


def probers():
    """Return the threads that probe."""
    return [each for each in threading.enumerate() if each.name == "shardcache prober"]


@pytest.mark.slow
@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_a_node_that_one_client_ejects_is_ejected_for_the_other(
    request, caplog, kind, first, second
):
    """No second series of timeouts, one thread that probes, one line each, and both have it back."""
    server = request.getfixturevalue(f"make_{kind}")()
    others = set(probers())
    logs = [EventLog(NodeEjected, NodeRestored) for _ in range(2)]
    clients = [
        make_client(mode, server.url, timeout=0.3, observers=[log])
        for mode, log in zip((first, second), logs, strict=True)
    ]
    for client in clients:
        assert client.set("k", 1)
    server.pause()
    while not clients[0].ejected:
        clients[0].get("k")
    errors = member_of(clients[1]).errors
    assert [node.name for node in clients[1].ejected] == [clients[1].nodes[0].name]
    for _ in range(100):
        assert clients[1].get("k", "miss") == "miss"
    assert member_of(clients[1]).refused == member_of(clients[1]).errors - errors == 100
    assert len(set(probers()) - others) == 1
    server.resume()
    eventually(lambda: not clients[1].ejected, within=7)
    assert clients[0].ejected == ()
    for client, log in zip(clients, logs, strict=True):
        assert client.get("k") == 1
        assert log.types() == [NodeEjected, NodeRestored]
        assert member_of(client).ejections == 1
        client.close()
    assert sum(" ejected: " in record.getMessage() for record in caplog.records) == 1


def test_calls_under_way_on_another_loop_end_with_the_ejection(make_memcached):
    """Tasks of an `AsyncClient` do not wait for their deadlines when a `Client` meets the fault."""
    server = make_memcached()
    blocking = Client(server.url, timeout=5)
    begun, ended = threading.Event(), []

    async def main():
        async with AsyncClient(server.url, timeout=5) as client:
            await client.set("k", 1)
            server.pause()
            call = asyncio.create_task(client.get("k", "miss"))
            await asyncio.sleep(0)
            begun.set()
            assert await call == "miss"
            ended.append(time.monotonic())
            assert client.ejected

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert begun.wait(10)
    member = member_of(blocking)
    ejector, now = blocking._cluster.ejector, time.monotonic()
    for _ in range(3):
        ejector.record_failure(member, NodeTimeoutError("did not answer in time"), now, 5.0)
    ejected = time.monotonic()
    thread.join(10)
    assert ended[0] - ejected < 2
    server.resume()
    blocking.close()


def test_a_connection_from_before_the_ejection_is_not_used_again(make_memcached):
    """A loop that stood still dials again: its old connection may hold late replies."""
    server = make_memcached()
    blocking, driven = (
        Client(server.url, timeout=0.2),
        make_client("asyncio", server.url, timeout=0.2),
    )
    driven.set("k", 1)
    before = member_of(driven).backend.dialed
    server.pause()
    while not blocking.ejected:
        blocking.get("k")
    server.resume()
    eventually(lambda: not blocking.ejected, within=7)
    assert driven.get("k") == 1
    assert driven.get("k") == 1
    assert member_of(driven).backend.dialed == before + 1
    assert driven.ejected == ()
    driven.close()
    blocking.close()


@pytest.mark.parametrize("mode", MODES)
def test_nodes_with_other_settings_share_nothing(make_redis, mode):
    """Another login, database or timeout has a health of its own."""
    server = make_redis()
    url = server.url
    clients = [
        make_client(mode, url, timeout=1.0),
        make_client(mode, url, timeout=2.0),
        make_client(mode, url, timeout=TimeoutPolicy(1.0, connect=0.5)),
        make_client(mode, url.replace("redis://", "redis://:secret@"), timeout=1.0),
        make_client(mode, url.replace("redis://", "redis://:other@"), timeout=1.0),
        make_client(mode, f"{url}/1", timeout=1.0),
    ]
    alike = make_client(mode, f"{url.upper().replace('REDIS', 'redis')}", timeout=1)
    assert len({id(member_of(client).health) for client in clients}) == len(clients)
    assert member_of(alike).health is member_of(clients[0]).health
    for client in (*clients, alike):
        client.close()


def test_memory_nodes_are_never_shared():
    """Each client has its own, whatever their names."""
    clients = [Client("memory://a"), Client("memory://a")]
    assert member_of(clients[0]).health is not member_of(clients[1]).health
    for client in clients:
        client.close()


@pytest.mark.parametrize("how", ["closed", "dropped"])
@pytest.mark.parametrize("mode", MODES)
def test_a_new_client_inherits_nothing_from_a_closed_one(make_memcached, mode, how):
    """It asks a server that is back on its port at once."""
    server = make_memcached()
    server.kill()
    client = make_client(mode, server.url, timeout=1)
    client.get("k")
    assert client.ejected
    held = member_of(client)  # as a call in flight would
    if how == "closed":
        client.close()
    del client
    gc.collect()
    server.restart()
    after = make_client(mode, server.url, timeout=1)
    assert after.ejected == ()
    assert after.set("k", 1)
    assert held.health is not member_of(after).health
    after.close()


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupted_finalizer_keeps_nothing(make_memcached, monkeypatch, mode):
    """Nothing is probed for its client, and no later client inherits."""
    server = make_memcached()
    server.kill()

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ejector, "stop", interrupted)
        patched.setattr(sys, "unraisablehook", lambda _: None)
        client = make_client(mode, server.url, timeout=1)
        client.get("k")
        prober = getattr(client, "twin", client)._cluster.ejector.prober
        del client
        gc.collect()
    eventually(lambda: not prober._out, within=5)
    after = make_client(mode, server.url, timeout=1)
    assert after.ejected == ()
    (known,) = prober._known.values()
    assert list(known.members) == [member_of(after)]
    after.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_thousand_clients_leave_nothing(how):
    """Made and dropped, with or without another client at work."""
    staying = Client("memcached://127.0.0.1:1", timeout=0.7)
    prober = staying._cluster.ejector.prober
    for number in range(1000):
        client = Client(
            ["memcached://127.0.0.1:1", f"memcached://127.0.0.1:{number + 2}"],
            timeout=0.7 if number % 2 else 0.8,
        )
        if how == "closed":
            client.close()
    del client
    gc.collect()
    mine = [terms for terms in shared._probers if terms[1] in (0.7, 0.8)]
    assert mine == [(os.getpid(), 0.7, 0.7)]
    assert len(prober._known) == 1
    assert list(member_of(staying).health.members) == [member_of(staying)]
    staying.close()


def test_nodes_that_come_and_go_leave_nothing(make_memcached):
    """A removed node is forgotten, an added one shared, and a moved one is another node."""
    server, other = make_memcached(), make_memcached()
    clients = [Client(server.url, timeout=1), Client(server.url, timeout=1)]
    prober = clients[0]._cluster.ejector.prober
    known = len(prober._known)
    clients[0].add_node(other.url)
    clients[1].add_node(other.url)
    name = clients[0].nodes[1].name
    shared = [client._cluster.members[name].health for client in clients]
    assert shared[0] is shared[1]
    assert len(prober._known) == known + 1
    other.kill()
    while not clients[0].ejected:
        clients[0].get_many([f"k{number}" for number in range(50)])
    assert [node.name for node in clients[1].ejected] == [name]
    for client in clients:
        client.remove_node(name)
        assert client.ejected == ()
    assert len(prober._known) == known
    eventually(lambda: shared[0] not in prober._out, within=5)
    for client in clients:
        client.close()


def test_a_forked_child_starts_afresh(make_memcached):
    """Its clients know nothing of their parent's ejections, and share among themselves."""
    server = make_memcached()
    parent = Client(server.url, timeout=0.5)
    server.kill()
    parent.get("k")
    assert parent.ejected
    server.restart()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            first, second = Client(server.url, timeout=0.5), Client(server.url, timeout=0.5)
            assert first.ejected == second.ejected == ()
            assert first.set("child", 1)
            assert member_of(first).health is member_of(second).health
            assert member_of(first).health is not member_of(parent).health
            error = NodeTimeoutError("did not answer in time")
            first._cluster.ejector.prober.eject(member_of(first).health, error, time.monotonic())
            assert second.ejected
            eventually(lambda: not second.ejected, within=7)
            eventually(lambda: not parent.get("k") and not parent.ejected, within=7)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    parent.close()


def test_a_forked_child_probes_at_once(make_memcached):
    """It does not wait for its parent's thread, which it does not have."""
    server = make_memcached()
    client = Client(server.url, timeout=60)
    server.kill()
    client.get("k")
    assert client.ejected
    pid = os.fork()
    if pid == 0:
        client.get("k")
        os._exit(0 if probers() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.close()


def test_threads_make_and_close_clients_while_a_node_comes_and_goes(make_memcached):
    """None of eight threads keeps a healthy node ejected."""
    server = make_memcached()
    staying = Client(server.url, timeout=0.5)
    faults, over = [], threading.Event()

    def work():
        try:
            while not over.is_set():
                with Client(server.url, timeout=0.5) as client:
                    client.get("k")
                    client.get("k")
        except Exception as error:  # noqa: BLE001 - told below
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        server.kill()
        eventually(lambda: staying.get("k") is None and staying.ejected, within=10)
        server.restart()
        eventually(lambda: not staying.ejected, within=15)
    over.set()
    for thread in threads:
        thread.join()
    assert faults == []
    with Client(server.url, timeout=0.5) as last:
        assert member_of(last).health is member_of(staying).health
        assert last.set("k", 1)
    prober = staying._cluster.ejector.prober
    assert list(member_of(staying).health.members) == [member_of(staying)]
    staying.close()
    eventually(lambda: not prober._out, within=30)
