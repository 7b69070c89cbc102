"""The classic protocol through pymemcache: real servers, a proxy, and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.backends.pymemcache.backend import Task, ThreadExchange
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
from shardcache.core.health import FailureKind, failure_kind
from shardcache.core.keys import hash_name
from shardcache.core.placement.nodes import Node
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS, TEXT_FLAGS
from shardcache.errors import (
    ConfigurationError,
    NodeError,
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
from shardcache.io.blocking import BlockingIO
from shardcache.operations.port import step
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.waiting import eventually

TEXT = (TEXT_FLAGS, b"text")
OTHER = (RAW_FLAGS, b"\r\nEND\r\n\x00")


def make_backend(server_or_port, query="", **options):
    """Give a blocking backend for a server, or for a port of this machine."""
    if isinstance(server_or_port, int):
        location = f"127.0.0.1:{server_or_port}"
    else:
        location = server_or_port.url.partition("://")[2]
    node = Node(f"pymemcache://{location}{query}", name="cache1")
    return Pymemcache().blocking(node, BackendOptions(**options))


def ask(backend, command, seconds=5.0):
    """Give the reply to a command."""
    return backend.execute(command, time.monotonic() + seconds)


@pytest.fixture
def backend(memcached_servers):
    """Give a backend for an empty server."""
    backend = make_backend(memcached_servers[0])
    yield backend
    backend.close()


@pytest.fixture(params=MODES)
def mode(request):
    """Give each of the two clients in turn."""
    return request.param


@contextlib.contextmanager
def fake_server(*answers):
    """Give the port of a server that sends one answer after each thing it receives, then waits.

    A callable among them is handed the socket instead.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=exchange, args=(connection,), daemon=True).start()

        def exchange(connection):
            with contextlib.suppress(OSError), connection:
                for answer in answers:
                    if not connection.recv(65536):
                        return
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)
                while connection.recv(65536):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield port
        listener.shutdown(socket.SHUT_RDWR)


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
    """Stored on the value that was read; a token of another backend matches nothing."""
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


def test_counts(backend):
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
def test_a_counter_past_its_range_is_put_back(backend, value, delta):
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
    """What the classic protocol cannot say goes by its hash; no key is another's."""
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
    """It is refused alone, whether by our limit or by the server's."""
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


def test_figures_and_a_flush(backend):
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
    """Twemproxy forwards what a cache needs; what it does not forward is refused."""
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


def test_a_proxy_is_not_blamed_for_what_it_does_not_forward(
    make_nutcracker, memcached_servers, mode
):
    """Asking twemproxy for figures or a flush is refused, and the next `get` is served."""
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


def hang_up(connection):
    """Close the connection instead of answering."""
    connection.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_is_closed_is_lost():
    """One that the node closes is a loss, of which one alone ejects no node."""
    with fake_server(hang_up) as port:
        backend = make_backend(port)
        with pytest.raises(NodeUnavailableError, match="instead of answering") as raised:
            ask(backend, Set(b"k", TEXT))
        assert failure_kind(raised.value) is FailureKind.DISCONNECT
        backend.close()


def test_a_dead_server_is_unavailable_and_comes_back(make_memcached):
    """Refused connections and lost ones are the same to the caller, and nothing sticks."""
    server = make_memcached()
    backend = make_backend(server)
    ask(backend, Set(b"k", TEXT))
    server.kill()
    for _ in range(2):
        with pytest.raises(NodeUnavailableError, match="cache1"):
            ask(backend, Get(b"k"))
    assert all(
        isinstance(reply, NodeUnavailableError) for reply in ask(backend, GetMany([b"a"] * 500))
    )
    server.restart()
    assert ask(backend, Get(b"k")) is None
    backend.close()


def test_a_stopped_server_times_out(make_memcached):
    """The deadline holds for a connected client and for one that dials, and late replies are lost."""
    server = make_memcached()
    backend = make_backend(server)
    ask(backend, Set(b"k", TEXT))
    server.pause()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(NodeTimeoutError, match="cache1"):
            ask(backend, Get(b"k"), 0.1)
        assert time.monotonic() - began < 2
    server.resume()
    assert ask(backend, Get(b"other")) is None
    assert ask(backend, Get(b"k")) == TEXT
    backend.close()


def drip(connection):
    """Send a byte now and then, for ever."""
    connection.sendall(b"VALUE k 16 1000\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.03)


def test_a_dripping_server_times_out():
    """One deadline holds for the call, not for each byte."""
    with fake_server(drip) as port:
        backend = make_backend(port)
        began = time.monotonic()
        with pytest.raises(NodeTimeoutError):
            ask(backend, Get(b"k"), 0.2)
        assert time.monotonic() - began < 3
        backend.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE k 16 -5\r\nhello\r\nEND\r\n",
        b"VALUE k 16 99999999999\r\n",
        b"VALUE other 16 4\r\ntext\r\nEND\r\n",
        b"VALUE k x 4\r\ntext\r\nEND\r\n",
        b"VALUE k 16\r\n",
        b"VALUE k 16 3\r\ntext\r\nEND\r\n",
        b"VALUE k 16 1_0\r\n0123456789\r\nEND\r\n",
        b"VALUE k\r\n",
        b"STORED\r\n",
        b"\r\n",
        b"+PONG\r\n",
        b"x" * 200_000,
    ],
    ids=lambda answer: repr(answer[:30]),
)
def test_garbage_is_refused_at_once(answer):
    """What is no answer to a `get` is an error, never a value, and closes the connection."""
    with fake_server(answer) as port:
        backend = make_backend(port)
        for command in (Get(b"k"), Gets(b"k")):
            with pytest.raises(NodeProtocolError, match="cache1"):
                ask(backend, command)
        assert backend.pool.open == 0
        backend.close()


@pytest.mark.parametrize(
    "command",
    [Set(b"k", TEXT), Delete(b"k"), Touch(b"k", 60), Incr(b"k", 1), FlushAll(), DeleteMany([b"k"])],
    ids=repr,
)
@pytest.mark.parametrize("answer", [b"BANANA\r\n", b"VALUE k 0 1\r\n", b"1_0\r\n", b"-1\r\n"])
def test_an_unknown_line_is_no_no(command, answer):
    """An answer that is none is an error, where pymemcache itself would say `False`."""
    with fake_server(answer) as port:
        backend = make_backend(port)
        try:
            reply = ask(backend, command)
        except NodeProtocolError as error:
            reply = [error]
        assert isinstance(reply[0], NodeProtocolError)
        backend.close()


def test_an_answer_too_much_answers_nothing_else():
    """What a server sends unasked closes the connection, before it could answer the next call."""
    answered, sent = threading.Event(), threading.Event()

    def surplus(connection):
        connection.sendall(b"DELETED\r\n")
        answered.wait(10)
        connection.sendall(b"NOT_FOUND\r\n")
        sent.set()

    with fake_server(surplus) as port:
        backend = make_backend(port)
        assert ask(backend, Delete(b"a")) is True
        answered.set()
        assert sent.wait(10)
        assert ask(backend, Delete(b"b")) is True  # over a new connection
        backend.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SERVER_ERROR out of memory storing object\r\n", NodeRefusedError),
        (b"SERVER_ERROR object too large for cache\r\n", ValueTooLargeError),
        (b"SERVER_ERROR Connection refused\r\n", NodeRefusedError),
        (b"CLIENT_ERROR bad data chunk\r\n", NodeRefusedError),
        (b"ERROR Too many open connections\r\n", TooManyConnectionsError),
        (b"ERROR\r\n", NodeRefusedError),
    ],
)
def test_refusals_have_their_kind(answer, kind):
    """What a server says is told from what it does not say, and pymemcache's error is the cause."""
    with fake_server(answer) as port:
        backend = make_backend(port)
        with pytest.raises(NodeError) as raised:
            ask(backend, Set(b"k", TEXT))
        assert type(raised.value) is kind
        assert type(raised.value.__cause__).__name__.startswith("Memcache")
        assert backend.pool.open == 0
        backend.close()


def test_an_interrupt_leaves_no_half_read_connection():
    """After a `KeyboardInterrupt` in the middle of a reply the connection is gone."""

    def half(connection):
        connection.sendall(b"VALUE k 16 4\r\nte")

    with fake_server(half) as port:
        backend = make_backend(port)
        connection = backend._lent(time.monotonic() + 5)
        received = connection.recv

        def interrupted(size):
            received(size)
            raise KeyboardInterrupt

        connection.recv = interrupted
        backend.pool.give(connection)
        with pytest.raises(KeyboardInterrupt):
            ask(backend, Get(b"k"))
        assert backend.pool.open == 0
        backend.close()


def test_the_pool_is_bounded(make_memcached):
    """No more connections than allowed; who cannot get one says that it is our own pool."""
    server = make_memcached()
    backend = make_backend(server, pool_size=1)
    held = backend._lent(time.monotonic() + 5)
    with pytest.raises(PoolTimeoutError):
        ask(backend, Get(b"k"), 0.1)
    backend.pool.give(held)
    assert ask(backend, Get(b"k")) is None
    backend.close()


def test_several_nodes_are_asked_at_once(memcached_servers, make_memcached):
    """A stopped node does not keep what the others answered, and is late by itself."""
    stopped = make_memcached()
    backends = [make_backend(server) for server in (stopped, *memcached_servers)]
    stopped.pause()
    asks = [(backend, Set(b"k", TEXT)) for backend in backends]
    (late, _), *rest = step(BlockingIO().call_many(asks, time.monotonic() + 1))
    assert isinstance(late, NodeTimeoutError)
    assert [reply for reply, _ in rest] == [True] * len(memcached_servers)
    for backend in backends:
        backend.close()


def test_what_came_in_time_is_kept():
    """Of many keys in parts, the parts that arrived are the reply, and the rest is late."""
    with fake_server(b"END\r\n") as port:
        backend = make_backend(port)
        exchange = backend.begin(GetMany([b"k"] * 250), time.monotonic() + 20)
        eventually(lambda: len(exchange.task.so_far) == 200, within=10)
        exchange.expire()
        replies = exchange.result()
        assert replies[:200] == [None] * 200
        assert all(isinstance(reply, NodeTimeoutError) for reply in replies[200:])
        backend.close()


def test_an_outcome_is_its_first_arrival():
    """What arrives later changes nothing, and closes nothing."""
    exchange = ThreadExchange(Task(Ping(), time.monotonic() + 5, "cache1"))
    strangers = []
    for reply in (True, None, NodeTimeoutError("late")):
        exchange.arrive(reply)
        strangers.append(os.pipe())
    exchange.advance()
    exchange.arrive(None)
    assert exchange.result() is True
    for pair in strangers:
        for descriptor in pair:
            os.close(descriptor)  # raises if another has closed it


def test_a_thread_that_comes_up_late_touches_nothing_of_others(memcached_servers, monkeypatch):
    """An interrupt in the start of a thread leaves work that is done by nobody, for nobody."""
    backend = make_backend(memcached_servers[0])
    start, begun = threading.Thread.start, []

    def interrupted(thread):
        begun.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.begin(Ping(), time.monotonic() + 5)
    strangers = [os.pipe() for _ in range(4)]
    for thread in begun:
        start(thread)
    backend.close()
    for thread in begun:
        thread.join(10)
    for reader, writer in strangers:
        os.close(writer)
        assert os.read(reader, 1) == b""  # nothing was written, and nothing closed
        os.close(reader)


def test_without_threads_no_node_is_blamed(memcached_servers, mode, monkeypatch):
    """A process that may have no more of them gets an error of its own, and nobody is ejected."""
    url = memcached_servers[0].url.replace("memcached", "pymemcache")
    other = memcached_servers[1].url.replace("memcached", "pymemcache")

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with contextlib.closing(make_client(mode, [url, other], on_error="raise")) as client:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(PartialFailureError) as raised:
                client.get_many([f"k{number}" for number in range(20)])
            for error in raised.value.failed.values():
                assert isinstance(error, NodeUnavailableError)
                assert failure_kind(error) is FailureKind.NONE
        assert client.get_many([f"k{number}" for number in range(20)]) == {}


def test_an_abandoned_exchange_frees_its_place(memcached_servers):
    """Who does not wait for a reply leaves no connection behind that holds it."""
    backend = make_backend(memcached_servers[0], pool_size=1)
    for _ in range(50):
        exchange = backend.begin(Set(b"k", TEXT), time.monotonic() + 5)
        exchange.abandon()
    assert ask(backend, Set(b"k", OTHER)) is True
    assert ask(backend, Get(b"k")) == OTHER
    backend.close()


def test_a_reply_wakes_who_polls_in_spite_of_a_fork(memcached_servers):
    """A forked child that still holds the other end keeps nobody waiting."""
    backend = make_backend(memcached_servers[0])
    exchange = ThreadExchange(Task(Ping(), time.monotonic() + 5, "cache1"))
    inherited = os.dup(exchange._wakeup._outer.fileno())
    backend.start(exchange.task, exchange)
    poll = select.poll()
    poll.register(exchange.fileno(), exchange.events())
    assert poll.poll(10_000)
    exchange.advance()
    assert exchange.result() is True
    os.close(inherited)
    backend.close()


async def test_closing_waits_for_calls_in_flight(memcached_servers):
    """What was asked before is answered before the connections go."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions())
    calls = [backend.execute(Ping(), time.monotonic() + 10) for _ in range(10)]
    await backend.aclose()
    assert all(call.done() and call.result() is True for call in calls)


async def test_tasks_share_a_node(memcached_servers):
    """Hundreds of calls at once get each its own value, over a bounded number of connections."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=4))
    deadline = time.monotonic() + 20
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(300)]
    assert await backend.execute(SetMany(items), deadline) == [True] * len(items)
    replies = await asyncio.gather(*(backend.execute(Get(key), deadline) for key, _ in items))
    assert replies == [payload for _, payload in items]
    assert backend._blocking.pool.open <= 4
    await backend.aclose()
    assert backend._blocking.pool.open == 0
    assert await backend.execute(Get(b"k1"), deadline) == (INTEGER_FLAGS, b"1")
    await backend.aclose()


async def test_cancelling_mixes_nothing_up(memcached_servers):
    """A cancelled call discards its own reply, and the next gets its own."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=2))
    deadline = time.monotonic() + 20
    items = [(b"k%d" % number, (INTEGER_FLAGS, b"%d" % number)) for number in range(100)]
    troubles = []
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
    await backend.execute(SetMany(items), deadline)
    for number, (key, payload) in enumerate(items):
        cancelled = backend.execute(Get(b"k0"), deadline)
        if number % 2:
            await asyncio.sleep(0)
        cancelled.cancel()
        assert await backend.execute(Get(key), deadline) == payload
    await backend.aclose()
    assert troubles == []


async def test_what_was_cancelled_in_time_is_not_asked(make_memcached):
    """A call that found no thread free and is not wanted any more changes nothing on the node."""
    server = make_memcached()
    node = Node(server.url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=1))
    deadline = time.monotonic() + 20
    await backend.execute(Set(b"n", (INTEGER_FLAGS, b"1")), deadline)
    server.pause()
    first = backend.execute(Get(b"n"), deadline)
    backend.execute(Incr(b"n", 1), deadline).cancel()
    server.resume()
    await first
    assert await backend.execute(Get(b"n"), deadline) == (INTEGER_FLAGS, b"1")
    await backend.aclose()


async def test_a_stopped_node_times_out_in_tasks(make_memcached):
    """A call is late at its deadline, also one that found no thread free."""
    server = make_memcached()
    node = Node(server.url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions(pool_size=2))
    server.pause()
    calls = [backend.execute(Get(b"k"), time.monotonic() + 0.2) for _ in range(10)]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(reply, NodeTimeoutError) for reply in replies)
    server.resume()
    assert await backend.execute(Get(b"k"), time.monotonic() + 10) is None
    await backend.aclose()


def test_loops_one_after_another(memcached_servers):
    """A backend outlives the loop that used it first, with calls of it in flight."""
    node = Node(memcached_servers[0].url.replace("memcached", "pymemcache"))
    backend = Pymemcache().asyncio(node, BackendOptions())

    async def run():
        backend.execute(Get(b"unread"), time.monotonic() + 5)
        return await backend.execute(Ping(), time.monotonic() + 5)

    assert [asyncio.run(run()) for _ in range(3)] == [True] * 3
    asyncio.run(backend.aclose())


def test_the_exit_waits_for_no_stopped_node(make_memcached):
    """A program with a call in flight ends at once and says nothing."""
    server = make_memcached()
    server.pause()
    program = f"""
import time
from shardcache.backends.base import BackendOptions
from shardcache.backends.pymemcache import Pymemcache
from shardcache.core.commands import Get
from shardcache.core.placement.nodes import Node
backend = Pymemcache().blocking(Node({server.url.replace("memcached", "pymemcache")!r}), BackendOptions())
exchange = backend.begin(Get(b"k"), time.monotonic() + 60)
time.sleep(0.1)
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, timeout=30, capture_output=True
    )
    assert ended.stderr == b""


@pytest.mark.parametrize("query", ["?max_value_bytes=0", "?max_value_bytes=x", "?timeout=5"])
def test_faults_of_a_url_are_named(query):
    """What cannot work is refused when the node is made, and says which node."""
    with pytest.raises(ConfigurationError, match="cache1"):
        make_backend(11211, query)
