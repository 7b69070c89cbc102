"""The straight way of a call and the general one are one: same bytes, replies, counts and faults."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardcache import Client, NodeRefusedError, Observer, Shadow
from shardcache.backends.memcached import straight as memcached
from shardcache.backends.memcached.wire import MemcachedWire
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.wire import RedisWire
from shardcache.backends.transport.sockets import RESTED
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Get
from shardcache.errors import ShardCacheError
from shardcache.testing import FaultProxy
from shardcache.testing.driving import make_client
from shardcache.testing.waiting import eventually

KINDS = ["memcached", "redis"]
CALLS = {
    "get": lambda client: client.get("k"),
    "get a miss": lambda client: client.get("none"),
    "set": lambda client: client.set("k", b"new", 60),
    "set for ever": lambda client: client.set("k", {"new": 1}),
    "set nothing": lambda client: client.set("k", b"new", 0),
    "set too much": lambda client: client.set("k", b"x" * 2_000),
    "delete": lambda client: client.delete("k"),
    "delete a miss": lambda client: client.delete("none"),
    "incr": lambda client: client.incr("n", 3),
    "incr a miss": lambda client: client.incr("none"),
    "incr text": lambda client: client.incr("k"),
    "incr with an initial": lambda client: client.incr("none", initial=5),
    "an invalid key": lambda client: client.get(""),
    "an invalid value": lambda client: client.set("k", object()),
    "an invalid ttl": lambda client: client.set("k", 1, float("nan")),
    "an invalid step": lambda client: client.incr("n", 1.5),
    "a key in base64": lambda client: client.get("two words"),
}
# The time of the calls, and deletes that the background does.
UNSTEADY = {"mean_seconds", "pending_deletes"}
LIMIT = "?max_value_bytes=1000"


@pytest.fixture
def make(mode, make_memcached, make_redis):
    """Return a function that returns two clients of equal servers: straight, and by the general way."""
    with contextlib.ExitStack() as stack:

        def make(kind, **options):
            clients = []
            for straight in (True, False):
                server = (make_memcached if kind == "memcached" else make_redis)()
                proxy = stack.enter_context(FaultProxy(server.url))
                client = make_client(mode, proxy.url + LIMIT, **{"timeout": 20, **options})
                stack.callback(client.close)
                assert client._cluster.straight
                client._cluster.straight = straight
                client.set_many({"k": b"value", "n": 7, "two words": "text"})
                clients.append((client, proxy))
            return clients

        yield make


def outcome(client, call):
    """Return all that a caller and an operator see of a call."""
    try:
        result = call(client)
    except (ShardCacheError, TypeError, ValueError) as error:
        (node,) = client.nodes
        result = type(error), str(error).replace(str(node), "the node")
    (figures,) = client.counters().values()
    figures = {name: figure for name, figure in figures.items() if name not in UNSTEADY}
    return result, figures, client._cluster.route("k")[1].backend.retried


def is_quiet(client):
    """Return whether no connection is in use and no write is pending; let a client's loop run once."""
    loop = getattr(client, "loop", None)
    if loop is not None:
        loop.run_until_complete(asyncio.sleep(0.001))
    member = client._cluster.route("k")[1]
    return not member.backend.pool_use.busy and not member.health.watched


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_caller_sees_is_equal(make, kind, on_error):
    """Whatever is asked, on a node that works."""
    (straight, _), (general, _) = make(kind, on_error=on_error)
    for name, call in CALLS.items():
        assert outcome(straight, call) == outcome(general, call), name
    for key in ("k", "n", "none", "two words"):
        assert straight.gets(key)[0] == general.gets(key)[0]


class Seeing(Observer):
    """An observer of calls, keys and faults: what it heard, without times and the names of nodes."""

    def __init__(self):
        self.heard = []

    def call_finished(self, event):
        """Note a call, and whether it has a length."""
        measured = event.started > 0 and event.seconds > 0
        facts = measured, event.command, event.hits, event.misses, event.keys, type(event.error)
        self.heard.append(facts)

    def keys_accessed(self, event):
        """Note the keys that a node answered for."""
        self.heard.append((event.operation, event.keys, event.sizes, event.ttl))

    def node_failed(self, event):
        """Note a node's error."""
        self.heard.append((type(event.error), event.swallowed))


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_observer_hears_is_equal(make, kind):
    """Of calls that a node answers, and of those that it refuses."""
    seeing = Seeing()
    heard = []
    for client, _ in make(kind, observers=[seeing]):
        seeing.heard.clear()
        for call in CALLS.values():
            outcome(client, call)
        heard.append(list(seeing.heard))
    assert len(heard[0]) > len(CALLS)
    assert heard[0] == heard[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["get", "get a miss", "set", "delete", "incr"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_cut_between_any_two_bytes_is_the_same_to_both(make, monkeypatch, kind, name):
    """The reply, the retry, the counts, and what is open afterwards."""
    monkeypatch.setattr(
        memcached, "randbelow", lambda _: 10_000
    )  # so that replies are equally long
    clients = make(kind, on_error="raise")
    for client, proxy in clients:
        client.get("k")
        before = proxy.received
        CALLS[name](client)
    length = proxy.received - before
    assert length > 3
    # After a part of a reply a reset may come before it or after it, so there only the end is planted.
    for size, how in [(0, "rst"), *((size, "fin") for size in range(length))]:
        seen = []
        for client, proxy in clients:
            client.set_many({"k": b"value", "n": 7})
            client.get("k")
            proxy.cut_after(size, how, connections=1)
            seen.append(outcome(client, CALLS[name]))
            proxy.heal()
            eventually(lambda client=client: is_quiet(client), within=20)
        assert seen[0] == seen[1], f"after {size} bytes"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["get", "set", "delete", "incr"])
def test_a_node_that_stalls_costs_both_the_timeout(make, kind, name):
    """A reply that stops, at its start or within it, is late, and its connection is closed."""
    clients = make(kind, on_error="raise", timeout=1.0)
    for size in (0, 4):
        seen = []
        for client, proxy in clients:
            client.get("k")
            proxy.cut_after(size, "stall", connections=1)
            seen.append(outcome(client, CALLS[name]))
            proxy.heal()
            eventually(lambda client=client: is_quiet(client), within=20)
        assert seen[0] == seen[1], f"after {size} bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_in_fragments_is_whole(make, kind):
    """A byte at a time, and a value that is larger than the first read."""
    for client, proxy in make(kind):
        proxy.drip(1, 0.0005)
        assert client.get("k") == b"value"
        assert client.set("k", b"x" * 200, 60)
        assert client.get("k") == b"x" * 200
        assert client.incr("n") == 8


@pytest.mark.parametrize("straight", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_rested_is_looked_at(mode, make_memcached, make_redis, kind, straight):
    """One that the server closed meanwhile is not written to."""
    server = (make_memcached if kind == "memcached" else make_redis)()
    client = make_client(mode, server.url, timeout=20, on_error="raise")
    client._cluster.straight = straight
    with contextlib.closing(client):
        client.set("k", b"value")
        server.restart()
        time.sleep(2 * RESTED)
        assert client.get("k") is None
        assert client._cluster.route("k")[1].backend.retried == 0


def test_a_refused_overwrite_drops_the_old_value(make):
    """Redis keeps it: both ways delete it."""
    for client, _ in make("redis", on_error="raise"):
        with pytest.raises(NodeRefusedError):
            client.set("k", b"x" * 2_000)
        assert client.get("k") is None


class Counting(Observer):
    """An observer of calls."""

    def __init__(self):
        self.calls = 0

    def call_finished(self, event):  # noqa: ARG002 - of an observer
        """Count a call."""
        self.calls += 1


class Operations(Observer):
    """An observer of whole operations."""

    def operation_finished(self, event):
        """Ignore an operation."""


def test_what_others_hear_of_takes_the_general_way(make_memcached):
    """An observer of operations, a generation in the keys, a change of nodes: none is passed by."""
    server, other = make_memcached(), make_memcached()
    counting = Counting()
    with Client(server.url, observers=[counting]) as client:
        client.set("k", 1)
        client.get("k")
        assert counting.calls == 2
        assert client._cluster.straight  # as for all others
        client.get_or_set("cached", lambda: 1, ttl=60)
        before = counting.calls
        client.get_or_set("cached", lambda: 1, ttl=60)
        assert counting.calls == before + 1
    with Client(server.url, observers=[Operations()]) as client:
        assert not client._cluster.straight
    with (
        Client(server.url, clearable=True, namespace="n") as cleared,
        Client(server.url) as moving,
    ):
        assert moving._cluster.straight
        moving.add_node(other.url, warm_for=60)
        for client in (cleared, moving):
            assert not client._cluster.straight
            assert client.set("k", 1)
            assert client.get("k") == 1
        moving.remove_node(moving.node_for("k").name)
        assert moving._cluster.straight


def test_a_shadow_hears_of_the_straight_way(make_memcached):
    """What a `get` and a cached function read there is compared with the shadow."""
    server, other = make_memcached(), make_memcached()
    shadow = Shadow(other.url, sample=1.0, settle=0)
    with Client(server.url, shadow=shadow, timeout=10) as client:
        client.set("k", 1)
        assert client._cluster.straight
        assert client.get("k") == 1
        eventually(lambda: client.counters().shadow["only_here"] == 1, within=10)
        assert client.get_or_set("cached", lambda: 1, ttl=60) == 1
        read = sum(client.counters().shadow.values())
        assert client.get_or_set("cached", lambda: 1, ttl=60) == 1
        eventually(lambda: sum(client.counters().shadow.values()) > read, within=10)


@pytest.mark.parametrize("kind", KINDS)
def test_many_cached_values_are_read_by_one_command_a_node(request, kind):
    """Not by one for each key."""
    (server, *_) = request.getfixturevalue(f"{kind}_servers")
    counting = Counting()
    keys = [f"many:{number}" for number in range(50)]
    with Client(server.url, observers=[counting], timeout=20) as client:
        for _ in range(2):
            counting.calls = 0
            found = client.get_or_set_many(keys, lambda missing: dict.fromkeys(missing, 1), ttl=60)
            assert found == dict.fromkeys(keys, 1)
        assert counting.calls == 1


def test_an_ejected_node_is_not_asked(make_memcached):
    """Nor is a stand-in passed by."""
    nodes = [make_memcached() for _ in range(3)]
    with Client([node.url for node in nodes], timeout=0.2, failover="next") as client:
        keys = [f"k{number}" for number in range(60)]
        for key in keys:
            assert client.set(key, key)
        nodes[0].kill()
        for _ in range(3):
            for key in keys:
                client.set(key, key)
        assert [client.get(key) for key in keys] == keys
        assert sum(figures["detoured_calls"] for figures in client.counters().values()) > 0


def plain(request):
    """Return a request without its token, which is another for each connection."""
    return re.sub(rb"O\d+", b"O", request)


def wires(kind):
    """Return two new wires of one kind."""
    if kind == "memcached":
        return MemcachedWire(max_value=100), MemcachedWire(max_value=100)
    return tuple(RedisWire(RedisOptions(max_value_bytes=100), "node") for _ in range(2))


@pytest.mark.parametrize("kind", KINDS)
@given(
    key=st.one_of(st.binary(min_size=1, max_size=300), st.text("abc:/", min_size=1).map(str.encode))
)
@example(b"k" * 250)
@example(b"k" * 251)
def test_requests_are_equal(kind, key):
    """A wire either starts the same request, or leaves it to `encode`."""
    straight, general = wires(kind)
    request = straight.start_get(key)
    whole = b"".join(general.encode(Get(key)))
    assert straight.idle
    assert request is None or plain(request) == plain(whole)
    if kind == "redis" or re.fullmatch(rb"[!-~]{1,250}", key):
        assert request is not None


REPLIES = {
    "memcached": [
        b"VA 5 f0 O%d\r\nvalue\r\n",
        b"VA 0 f65536 O%d\r\n\r\n",
        b"VA 5 f0 O%d W\r\nvalue\r\n",
        b"EN O%d\r\n",
        b"EN\r\n",
        b"VA 101 f0 O%d\r\n" + b"x" * 101 + b"\r\n",
        b"VA 7 f0 O%d\r\nan\r\nend\r\n",
        b"SERVER_ERROR out of memory O%d\r\n",
    ],
    "redis": [
        b"$5\r\nvalue\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$15\r\n\xc1\x0212345678hello\r\n",
        b"$7\r\nan\r\nend\r\n",
        b"$101\r\n" + b"x" * 101 + b"\r\n",
        b"-LOADING wait\r\n",
        b"+OK\r\n",
        b":1\r\n",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_replies_are_equal(kind, data):
    """What the straight way reads is what `feed` reads, whatever bytes come, cut or changed."""
    straight, general = wires(kind)
    token = int((re.findall(rb"O(\d+)", straight.start_get(b"k")) or [0])[0])
    general.encode(Get(b"k"))
    if kind == "memcached":
        general._pending[0].token = b"O%d" % token
    reply = data.draw(st.sampled_from(REPLIES[kind]))
    reply = reply % token if b"%d" in reply else reply
    place = data.draw(st.integers(0, 40))
    reply = data.draw(
        st.sampled_from(
            [reply, reply[:place], reply[:place] + b"0" + reply[place:], reply + b"\r\n"]
        )
    )
    seen = straight.end_get(reply)
    if seen is UNUSUAL:
        return
    assert general.feed(reply) == [seen]
    assert general.idle


def test_a_reply_with_another_token_is_never_read():
    """One key's value is not returned for another, nor is one's miss."""
    wire, _ = wires("memcached")
    token = int(re.findall(rb"O(\d+)", wire.start_get(b"k"))[0])
    assert wire.end_get(b"VA 5 f0 O%d\r\nvalue\r\n" % token) == (0, b"value")
    for other in (b"%d" % (token + 1), b"%d0" % token, b""):
        assert wire.end_get(b"VA 5 f0 O%b\r\nvalue\r\n" % other) is UNUSUAL
        assert wire.end_get(b"EN O%b\r\n" % other) is UNUSUAL
