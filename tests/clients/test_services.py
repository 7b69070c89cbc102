"""Background services start at a client's first call to a node, and stop when it is closed."""

from __future__ import annotations

import gc
import logging
import os
import weakref

import pytest

from shardcache import Client
from shardcache.clients.base import add_service
from shardcache.io.blocking import BlockingIO
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually


class Recorder:
    """A service that writes down what is asked of it."""

    def __init__(self, name="", log=None):
        self.name = name
        self.log = [] if log is None else log

    def start(self):
        """Begin."""
        self.log.append(f"start {self.name}".strip())

    def stop(self):
        """End."""
        self.log.append(f"stop {self.name}".strip())


class Failing(Recorder):
    """A service that never starts."""

    def start(self):
        """Raise."""
        raise RuntimeError("no thread")


class Following:
    """A sketch of discovery: every few milliseconds a client gets the nodes of a list."""

    def __init__(self, client, nodes):
        self.io = BlockingIO()
        self.client = weakref.ref(client)
        self.nodes = nodes

    def start(self):
        """Look at the list every few milliseconds."""
        self.io.repeat(0.01, self.look, "discovery")

    async def look(self):
        """Use the nodes of the list; return whether to go on."""
        client = self.client()
        if client is None:
            return False
        if len(client.nodes) != len(self.nodes):
            client.set_nodes(self.nodes)
        return True

    def stop(self):
        """End the thread."""
        self.io.close()


def own(client):
    """Return the client itself, of whatever kind."""
    return getattr(client, "twin", client)


def test_the_first_call_starts_a_service_and_close_stops_it(mode):
    """Each happens once; what asks no node starts nothing."""
    client = make_client(mode, "memory://a,b,c")
    service = Recorder()
    add_service(own(client), service)
    assert client.nodes
    assert client.counters()
    assert repr(client)
    assert service.log == []
    client.get("k")
    client.get_many(["k", "l"])
    assert service.log == ["start"]
    client.close()
    client.close()
    assert service.log == ["start", "stop"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_many(["a", "b"]),
        lambda client: client.ping(),
        lambda client: client.get_or_set("k", lambda: 1, 60),
        lambda client: client.invalidate_tag("t"),
    ],
    ids=["get_many", "ping", "get_or_set", "invalidate_tag"],
)
def test_any_call_to_a_node_starts_services(mode, call):
    """Whatever the operation."""
    client = make_client(mode, "memory://a,b,c", lock_nodes="memory://x,y,z")
    service = Recorder()
    add_service(own(client), service)
    call(client)
    assert service.log == ["start"]
    client.close()


def test_a_client_whose_services_run_pays_nothing():
    """After the first call its port is what it was."""
    client = Client("memory://a", lock_nodes="memory://x")
    plain = client._cluster.io
    add_service(client, Recorder())
    assert client._cluster.io is not plain
    client.add_node("memory://b")
    client.get("k")
    assert client._cluster.io is plain
    assert client._cluster.locks.io is plain
    client.close()


def test_one_that_was_never_started_is_not_stopped(mode):
    """There is nothing to stop."""
    client = make_client(mode, "memory://a")
    service = Recorder()
    add_service(own(client), service)
    client.close()
    assert service.log == []


def test_services_stop_in_reverse_order(mode):
    """A later one may use an earlier one."""
    client = make_client(mode, "memory://a")
    log = []
    for name in ("one", "two"):
        add_service(own(client), Recorder(name, log))
    client.get("k")
    client.close()
    assert log == ["start one", "start two", "stop two", "stop one"]


def test_one_added_later_starts_at_the_next_call(mode):
    """The others are not started again."""
    client = make_client(mode, "memory://a")
    log = []
    add_service(own(client), Recorder("one", log))
    client.get("k")
    add_service(own(client), Recorder("two", log))
    assert log == ["start one"]
    client.get("k")
    assert log == ["start one", "start two"]
    client.close()


def test_a_service_that_fails_costs_no_call(mode, caplog):
    """The log tells of it, and the others start."""
    client = make_client(mode, "memory://a")
    service = Recorder()
    add_service(own(client), Failing("broken"))
    add_service(own(client), service)
    with caplog.at_level(logging.ERROR, logger="shardcache"):
        assert client.set("k", 1)
    (record,) = caplog.records
    assert "failed to start; calls go on without it" in record.getMessage()
    assert service.log == ["start"]
    client.close()


def test_a_client_that_is_dropped_stops_its_services():
    """Nobody has to close it."""
    client = Client("memory://a")
    service = Recorder()
    add_service(client, service)
    client.get("k")
    del client
    gc.collect()
    assert service.log == ["start", "stop"]


def test_a_service_may_change_the_nodes():
    """As discovery will: calls go on meanwhile."""
    client = Client("memory://a")
    nodes = ["memory://a"]
    add_service(client, Following(client, nodes))
    client.set("k", 1)
    nodes.append("memory://b")
    eventually(lambda: len(client.nodes) == 2, within=20)
    client.close()


def test_a_forked_child_starts_them_again():
    """The parent's threads are not there; what the child starts, it stops."""
    client = Client("memory://a")
    service = Recorder()
    add_service(client, service)
    client.get("k")
    if (child := os.fork()) == 0:
        status = 1
        try:
            assert service.log == ["start"]
            client.get("k")
            client.close()
            assert service.log == ["start", "start", "stop"]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert service.log == ["start"]
    client.close()
    assert service.log == ["start", "stop"]


def test_taking_a_lock_starts_services():
    """On nodes for locks alone as well."""
    client = Client("memory://a", lock_nodes="memory://x,y,z")
    service = Recorder()
    add_service(client, service)
    with client.lock("report"):
        assert service.log == ["start"]
    client.close()
