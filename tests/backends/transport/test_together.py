"""Nodes that are asked together, and nodes of a fan-out: same bytes, replies, counts and faults."""

from __future__ import annotations

import contextlib
import gc
import sys
import time

import pytest

from interrupting import interrupted
from shardcache import Client, Node
from shardcache.backends.memcached import straight as memcached
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis import wire as redis
from shardcache.backends.redis.wire import RedisWire
from shardcache.backends.transport import exchanges, together, transfer
from shardcache.backends.transport import pool as pools
from shardcache.backends.transport.pool import Slot
from shardcache.backends.transport.sockets import RESTED
from shardcache.errors import PartialFailureError, ValueTooLargeError
from shardcache.io import blocking, fanout
from shardcache.testing import FaultProxy
from shardcache.testing.waiting import eventually

KINDS = ["memcached", "redis"]
KEYS = [f"k{number}" for number in range(30)]
ITEMS = {key: f"value of {key}".encode() for key in KEYS}
CALLS = {
    "get_many": lambda client: client.get_many(KEYS),
    "get_many, some missing": lambda client: client.get_many([*KEYS[::2], "none", "nothing"]),
    "get_many of keys in base64": lambda client: client.get_many([*KEYS, "two words"]),
    "set_many": lambda client: client.set_many(ITEMS, 60),
    "set_many of numbers": lambda client: client.set_many(dict.fromkeys(KEYS, 7), 60),
    "set_many with values that are too large": lambda client: client.set_many(
        {**ITEMS, "k1": b"x" * 2_000}, 60
    ),
    "set_many of more than is sent at once": lambda client: client.set_many(
        dict.fromkeys(map(str, range(200)), b"x" * 900), 60
    ),
    "delete_many": lambda client: client.delete_many([*KEYS, "none", "nothing"]),
}
UNSTEADY = {"mean_seconds", "pending_deletes"}
LIMIT = "?max_value_bytes=1000"


@pytest.fixture
def make(make_memcached, make_redis, monkeypatch):
    """Return a function that makes two clients of equal nodes: asked together, and by a fan-out."""
    # So that requests and replies are equally long.
    monkeypatch.setattr(memcached, "randbelow", lambda _: 10_000)
    monkeypatch.setattr(redis, "token_bytes", lambda size: b"v" * size)
    with contextlib.ExitStack() as stack:

        def make(kind, **options):
            clients = []
            for together_ in (True, False):
                servers = [(make_memcached if kind == "memcached" else make_redis)() for _ in "ab"]
                proxies = [stack.enter_context(FaultProxy(server.url)) for server in servers]
                nodes = [
                    Node(each.url + LIMIT, name) for name, each in zip("ab", proxies, strict=True)
                ]
                client = Client(nodes, **{"timeout": 20, "on_error": "raise", **options})
                stack.callback(client.close)
                for member in client._cluster.members.values():
                    assert callable(member.backend.ask_together)
                    if not together_:
                        member.backend.ask_together = None
                clients.append((client, proxies[0]))
            return clients

        yield make


def outcome(client, call):
    """Return all that a caller and an operator see of a call."""
    try:
        result = call(client)
    except PartialFailureError as error:
        failed = {key: (type(each), str(each)) for key, each in error.failed.items()}
        result = failed, error.found, set(error.succeeded)
    figures = {
        name: {key: figure for key, figure in counts.items() if key not in UNSTEADY}
        for name, counts in client.counters().items()
    }
    return result, figures, [each.backend.retried for each in client._cluster.members.values()]


def is_quiet(client):
    """Return whether no connection is in use, no write is pending and no node is ejected."""
    members = client._cluster.members.values()
    return not any(each.backend.pool_use.busy or each.health.watched for each in members)


def note_sent(client):
    """Return a list to which each idle connection of a client adds what it sends."""
    sent = []
    for member in client._cluster.members.values():
        (connection,) = member.backend.pool.idle

        def send(data, *flags, send=connection.send, name=member.node.name):
            sent.append((name, bytes(data)))
            return send(data, *flags)

        connection.send = send
    return sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_requests_and_results_are_equal(make, kind, name):
    """Of every call, on nodes that work, at first and again."""
    seen = []
    for client, _ in make(kind):
        client.set_many(ITEMS)
        sent = note_sent(client)
        seen.append(
            [outcome(client, CALLS[name]) for _ in range(2)] + [client.get_many(KEYS), sent]
        )
    assert seen[0][-1]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_call_needs_no_fan_out(make, kind, monkeypatch):
    """Nodes whose connections are there are asked without."""
    (client, _), (general, _) = make(kind)
    for each in (client, general):
        each.set_many(ITEMS)
    monkeypatch.setattr(blocking, "FanOut", None)
    for _ in range(2):
        assert client.set_many(ITEMS) == []
        assert client.get_many(KEYS) == ITEMS
    assert client.delete_many(KEYS) == len(KEYS)
    with pytest.raises(TypeError):
        general.get_many(KEYS)


def test_nodes_of_several_kinds_are_asked_at_once(memcached_servers, redis_servers):
    """Whichever is the first of a call: those that cannot be asked together are asked all the same."""
    urls = [memcached_servers[0].url, "memory://near", redis_servers[0].url]
    urls.append(urls[0].replace("memcached", "pymemcache"))
    with Client([Node(url, str(place)) for place, url in enumerate(urls)], timeout=20) as client:
        of_nodes = {}
        for key in KEYS:
            of_nodes.setdefault(client.node_for(key).name, []).append(key)
        assert len(of_nodes) == len(urls)
        for first in of_nodes.values():
            keys = [*first, *KEYS]
            for _ in range(2):
                assert client.set_many({key: ITEMS[key] for key in keys}) == []
                assert client.get_many(keys) == ITEMS
            assert client.delete_many(keys) == len(KEYS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [ValueTooLargeError("too much", "a"), RuntimeError("broken")])
def test_a_command_that_cannot_be_encoded_is_the_same_to_both(make, monkeypatch, kind, error):
    """An error of the node stands for its keys; any other is raised. Every connection stays."""
    wire = MemcachedWire if kind == "memcached" else RedisWire

    encode, refusing = wire.encode, []

    def encode_or_refuse(self, command):
        if self in refusing:
            raise error
        return encode(self, command)

    monkeypatch.setattr(wire, "encode", encode_or_refuse)
    raised = RuntimeError if type(error) is RuntimeError else PartialFailureError
    for client, _ in make(kind):
        client.set_many(ITEMS)
        backend = client._cluster.members["a"].backend
        (connection,) = backend.pool.idle
        refusing[:] = [connection.wire]
        with pytest.raises(raised):
            client.get_many(KEYS)
        refusing.clear()
        assert list(backend.pool.idle) == [connection]
        assert client.get_many(KEYS) == ITEMS
        assert backend.dialed == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["get_many", "set_many", "delete_many"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_cut_between_any_two_bytes_is_the_same_to_both(make, kind, name):
    """The replies, the retry, the counts, and what is open afterwards."""
    call = {
        "get_many": lambda client: client.get_many(KEYS[:6]),
        "set_many": lambda client: client.set_many({key: ITEMS[key] for key in KEYS[:6]}, 60),
        "delete_many": lambda client: client.delete_many(KEYS[:6]),
    }[name]
    clients = make(kind)
    for client, proxy in clients:
        client.set_many(ITEMS)
        before = proxy.received
        call(client)
        length = proxy.received - before
    assert length > 3
    # After a part of a reply a reset may come before it or after it, so there only the end is planted.
    for size, how in [(0, "rst"), *((size, "fin") for size in range(length))]:
        seen = []
        for client, proxy in clients:
            client.set_many(ITEMS)
            client.get_many(KEYS)
            proxy.cut_after(size, how, connections=1)
            seen.append(outcome(client, call))
            proxy.heal()
            eventually(lambda client=client: is_quiet(client), within=20)
        assert seen[0] == seen[1], f"after {size} bytes"


@pytest.mark.parametrize("size", [0, 4, 20])
@pytest.mark.parametrize("name", ["get_many", "set_many", "delete_many"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_stalls_costs_both_the_timeout(make, kind, name, size):
    """A reply that stops, at its start or within it, is late, and only its keys are."""
    seen = []
    for client, proxy in make(kind, timeout=0.5):
        client.set_many(ITEMS)
        client.get_many(KEYS)
        proxy.cut_after(size, "stall", connections=1)
        began = time.monotonic()
        seen.append(outcome(client, CALLS[name]))
        assert 0.4 < time.monotonic() - began < 5
        proxy.heal()
    assert seen[0] == seen[1]
    late, *_ = seen[0][0]
    assert 0 < len(late) < len(KEYS)


@pytest.mark.parametrize("kind", KINDS)
def test_replies_in_fragments_are_whole(make, kind):
    """A few bytes at a time, of one node or of all."""
    for client, proxy in make(kind):
        client.set_many(ITEMS)
        proxy.drip(7, 0.0005)
        assert client.get_many(KEYS) == ITEMS
        assert client.set_many(ITEMS) == []
        assert client.delete_many(KEYS) == len(KEYS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_node_does_not_keep_others_from_sending(make_memcached, make_redis, kind):
    """What they have to say is more than fits into the buffers of their connections."""
    make = (lambda: make_memcached("-m", "256")) if kind == "memcached" else make_redis
    servers = {server.url: server for server in (make(), make())}
    values = {f"k{number}": bytes([number]) * 900_000 for number in range(40)}
    with Client(list(servers), timeout=20) as client:
        assert client.set_many(values) == []
        assert client.get_many(values) == values
        late = client.node_for("k0").url  # whose reply is waited for first
        client._cluster.timeout = 2.0
        servers[late].pause()
        began = time.monotonic()
        found = client.get_many(values)
        assert 1.9 < time.monotonic() - began < 6
        assert set(found) == {key for key in values if client.node_for(key).url != late}
        servers[late].resume()


@pytest.mark.parametrize("kind", KINDS)
def test_connections_that_rested_are_looked_at(make_memcached, make_redis, kind):
    """One that the server closed meanwhile is not written to; the others are used again."""
    servers = [(make_memcached if kind == "memcached" else make_redis)() for _ in "ab"]
    with Client([server.url for server in servers], timeout=20, on_error="raise") as client:
        client.set_many(ITEMS)
        dialed = [each.backend.dialed for each in client._cluster.members.values()]
        servers[0].restart()
        time.sleep(2 * RESTED)
        found = client.get_many(KEYS)
        assert found == {key: ITEMS[key] for key in found}
        assert 0 < len(found) < len(KEYS)
        backends = [each.backend for each in client._cluster.members.values()]
        assert [each.retried for each in backends] == [0, 0]
        assert sum(each.dialed for each in backends) == sum(dialed) + 1


class SoftInterrupt(Exception):  # noqa: N818 - named as the other
    """An interrupt of a class that a careless `except` would catch: Celery's time limit is so."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of Python's own finalizers
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["get_many", "set_many", "delete_many"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_at_any_moment_leaves_no_reply_behind(request, monkeypatch, kind, name, soft):
    """Every connection that is used again is in step, and no slot is lost."""
    monkeypatch.setattr(
        sys, "unraisablehook", lambda _: None
    )  # as pytest would keep what it tells of
    if soft:
        monkeypatch.setattr("interrupting.Interrupt", SoftInterrupt)
    servers = request.getfixturevalue(f"{kind}_servers")
    files = {each.__file__ for each in (together, exchanges, transfer, pools, fanout, blocking)}
    call = {
        "get_many": lambda client: client.get_many(KEYS),
        "set_many": lambda client: client.set_many(ITEMS, 60),
        "delete_many": lambda client: client.delete_many(["none", *map(str, range(9))]),
    }[name]

    def inside(code):
        return code.co_filename in files and code.co_name != "__del__"

    with Client([server.url for server in servers], timeout=20, pool_size=2) as client:
        client.set_many(ITEMS)
        interrupts = 0
        for _ in interrupted(lambda: call(client), inside):
            interrupts += 1
            assert client.get_many(KEYS) == ITEMS
        assert interrupts > 30
        del _  # with the frames that it was raised in
        gc.collect()
        for member in client._cluster.members.values():
            pool = member.backend.pool
            lent = [
                pool.reserve(time.monotonic() + 5) for _ in range(2)
            ]  # raises if a slot is lost
            for held in lent:
                (pool.release if isinstance(held, Slot) else pool.put)(held)
        assert client.ejected == ()
        assert client.get_many(KEYS) == ITEMS
