"""The fault proxy does to a connection what its methods say, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shardcache import Client, ConfigurationError
from shardcache.testing import FaultProxy
from shardcache.testing.driving import MODES, make_client
from shardcache.testing.faults.sockets import close, prepare
from shardcache.testing.waiting import eventually

PROMPT = 30.0  # seconds that a busy machine may take for what is done at once
SILENCE = 0.2  # seconds without a byte that count as silence
ASK = {"memcached": b"version\r\n", "redis": b"PING\r\n"}
BIG = random.Random(7).randbytes(1_000_000)
SET_BIG = b"set big 0 0 %d\r\n%s\r\n" % (len(BIG), BIG)
BIG_REPLY = b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(BIG), BIG)


@pytest.fixture(params=MODES)
def mode(request):
    """Return each of the two clients in turn."""
    return request.param


@pytest.fixture(params=ASK)
def kind(request):
    """Return each kind of server in turn."""
    return request.param


@pytest.fixture
def server(kind, request):
    """Return a running server of this kind."""
    return request.getfixturevalue(f"{kind}_servers")[0]


@pytest.fixture
def proxy(server):
    """Return a proxy to it."""
    with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def memcached(memcached_servers):
    """Return a proxy to a memcached."""
    with FaultProxy(memcached_servers[0].url) as proxy:
        yield proxy


@pytest.fixture
def dial():
    """Return a function that connects to a proxy; all is closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(proxy, timeout=PROMPT):
            return stack.enter_context(
                contextlib.closing(
                    socket.create_connection((proxy.host, proxy.port), timeout=timeout)
                )
            )

        yield connect


@pytest.fixture
def reply(kind, server):
    """Return what the server says to `ASK`, heard without a proxy."""
    with socket.create_connection((server.host, server.port), timeout=PROMPT) as direct:
        direct.sendall(ASK[kind])
        return direct.recv(1000)


def read(connection, size):
    """Return the next `size` bytes."""
    data = bytearray()
    while len(data) < size:
        some = connection.recv(size - len(data))
        assert some, f"closed after {len(data)} of {size} bytes"
        data += some
    return bytes(data)


def read_all(connection):
    """Return what comes until the end, and how it ends."""
    data = bytearray()
    try:
        while some := connection.recv(1 << 20):
            data += some
    except ConnectionResetError:
        return bytes(data), "rst"
    except TimeoutError:
        return bytes(data), "stall"
    return bytes(data), "fin"


def assert_silent(connection):
    """Raise unless nothing comes: no byte, no end."""
    connection.settimeout(SILENCE)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PROMPT)


def descriptors():
    """Return the numbers of this process's descriptors."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def threads():
    """Return the numbers of this process's threads, native ones too."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


# Without faults.


def test_both_clients_work_through_a_healthy_proxy(mode, kind, proxy):
    """Nothing is different but the address."""
    client = make_client(mode, proxy.url, on_error="raise", timeout=10)
    assert proxy.url == f"{kind}://127.0.0.1:{proxy.port}"
    assert client.set_many({f"k{n}": n for n in range(500)}) == []
    assert client.get_many([f"k{n}" for n in range(500)]) == {f"k{n}": n for n in range(500)}
    assert client.set("large", BIG[:900_000])
    assert client.get("large") == BIG[:900_000]
    assert client.delete("k1")
    assert client.get("k1") is None
    client.close()


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("127.0.0.1:11211", "{}"),
        ("[::1]:11211", "{}"),
        ("memcached://127.0.0.1", "memcached://{}"),
        (
            "redis://app:s%40e@127.0.0.1:7000/2?client_name=x",
            "redis://app:s%40e@{}/2?client_name=x",
        ),
        ("rediss://127.0.0.1", "rediss://{}"),
        ("pymemcache://[::1]:22121", "pymemcache://{}"),
        ("redis+unix://:pw@/run/redis.sock?db=2", "redis://:pw@{}?db=2"),
        ("memcached+unix:///run/memcached.sock", "memcached://{}"),
    ],
)
def test_the_url_is_the_targets_at_another_address(target, url):
    """Scheme, credentials, database and options stay; no password is shown."""
    with FaultProxy(target) as proxy:
        assert proxy.url == url.format(f"127.0.0.1:{proxy.port}")
        assert "s%40e" not in repr(proxy)
        assert "pw" not in repr(proxy)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("", "needs a host"),
        ("127.0.0.1", "URL or host:port, not '127.0.0.1'"),
        ("127.0.0.1:port", "a port is a number"),
        ("127.0.0.1:11211/2", "URL or host:port"),
        ("memory://a", "are in this process"),
        ("redis://a,b", "one host"),
        ("other://127.0.0.1", "needs a port"),
        ("no-such-host.invalid:1", "cannot be looked up"),
        (11211, "must be text"),
        (None, "must be text"),
    ],
)
def test_what_is_no_target_is_told(target, fault):
    """The error says what is wrong with it."""
    with pytest.raises(ConfigurationError, match=fault):
        FaultProxy(target)


def test_a_server_on_a_unix_socket_is_reached_over_tcp(mode, make_memcached, tmp_path):
    """So that its connections can be reset as well."""
    server = make_memcached(unix=tmp_path / "memcached")
    with FaultProxy(server.url) as proxy:
        client = make_client(mode, proxy.url, on_error="raise", timeout=10)
        assert client.set("k", 1)
        assert client.get("k") == 1
        client.close()


def test_tls_passes_unread(mode, make_redis, tls):
    """The client talks to the server's certificate."""
    server = make_redis(tls=tls)
    with FaultProxy(f"{server.url}?ssl_ca_certs={tls.authority}") as proxy:
        client = make_client(mode, proxy.url, on_error="raise", timeout=10)
        assert client.set("k", 1)
        assert client.get("k") == 1
        client.close()


def test_a_half_closed_client_still_gets_its_reply(proxy, dial, kind, reply):
    """Each direction ends on its own, as in TCP."""
    connection = dial(proxy)
    connection.sendall(ASK[kind])
    connection.shutdown(socket.SHUT_WR)
    got, how = read_all(connection)
    assert (got or reply, how) == (reply, "fin")  # memcached leaves with the client
    eventually(lambda: proxy.connections == 0, within=PROMPT)


def test_a_client_that_leaves_leaves_the_server(make_redis, dial):
    """With FIN or with RST, the server learns of it."""
    server = make_redis()
    with FaultProxy(server.url) as proxy, Client(server.url) as direct:

        def connected():
            (figures,) = direct.stats().values()
            return int(figures.server["connected_clients"])

        for cut_after in (None, "rst"):
            before = connected()
            connection = dial(proxy)
            connection.sendall(ASK["redis"])
            assert read(connection, 7) == b"+PONG\r\n"
            assert connected() == before + 1
            if cut_after:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            eventually(lambda before=before: connected() == before, within=PROMPT)


def test_a_server_that_is_gone_is_told(make_memcached, dial):
    """Its end passes to the client, and a dial to it is reset; the proxy goes on."""
    server = make_memcached()
    with FaultProxy(server.url) as proxy:
        connection = dial(proxy)
        connection.sendall(b"version\r\n")
        assert connection.recv(100)
        server.kill()
        assert read_all(connection)[1] in ("fin", "rst")
        with contextlib.suppress(ConnectionResetError):  # perhaps while it is dialed
            assert read_all(dial(proxy)) == (b"", "rst")
        server.restart()
        connection = dial(proxy)
        connection.sendall(b"version\r\n")
        assert connection.recv(100)


def test_what_the_server_said_before_it_hung_up_still_comes(dial):
    """A client that writes to a server that has closed reads its last words first."""
    words = b"-ERR max number of clients reached\r\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(f"127.0.0.1:{listener.getsockname()[1]}") as proxy,
    ):
        proxy.delay(0.2, "replies")
        connection = dial(proxy)
        accepted, _ = listener.accept()
        accepted.sendall(words)
        accepted.close()
        for _ in range(5):
            connection.sendall(b"PING\r\n")
            time.sleep(0.02)
        assert read_all(connection) == (words, "rst")


def test_counters(memcached, dial):
    """Bytes are those that passed, connections those that are and those that were."""
    version = b"version\r\n"
    assert (memcached.connections, memcached.accepted) == (0, 0)
    first, second = dial(memcached), dial(memcached)
    assert (memcached.connections, memcached.accepted) == (2, 2)
    first.sendall(version)
    reply = first.recv(100)
    assert (memcached.sent, memcached.received) == (len(version), len(reply))
    second.sendall(version * 2)
    assert read(second, 2 * len(reply)) == reply * 2
    assert (memcached.sent, memcached.received) == (3 * len(version), 3 * len(reply))
    first.close()
    assert (memcached.connections, memcached.accepted) == (1, 2)
    memcached.close()
    assert (memcached.connections, memcached.accepted) == (0, 2)
    assert (memcached.sent, memcached.received) == (3 * len(version), 3 * len(reply))


def test_two_proxies_know_nothing_of_each_other(memcached_servers, dial):
    """A fault of one is none of the other, though their server is the same."""
    url = memcached_servers[0].url
    with FaultProxy(url) as ill, FaultProxy(url) as well:
        ill.blackhole()
        for proxy in (ill, well):
            connection = dial(proxy)
            connection.sendall(b"version\r\n")
            if proxy is ill:
                assert_silent(connection)
            else:
                assert connection.recv(100).startswith(b"VERSION")
        assert (ill.sent, well.sent) == (0, 9)


# Delays and drips.


@pytest.mark.parametrize(
    ("direction", "least"), [("requests", 0.1), ("replies", 0.1), ("both", 0.2)]
)
def test_a_delay_takes_its_time(memcached, dial, direction, least):
    """On the way there, back, or both; on open connections and on new ones."""
    before = dial(memcached)
    before.sendall(b"version\r\n")
    before.recv(100)
    memcached.delay(0.1, direction)
    for connection in (before, dial(memcached)):
        started = time.monotonic()
        connection.sendall(b"version\r\n")
        assert connection.recv(100).startswith(b"VERSION")
        assert time.monotonic() - started >= least


def test_a_delay_holds_up_the_end_as_well(memcached, dial):
    """Nothing overtakes: the server's FIN comes as late as its bytes."""
    connection = dial(memcached)
    memcached.delay(0.2, "replies")
    started = time.monotonic()
    connection.sendall(b"version\r\nquit\r\n")
    got, how = read_all(connection)
    assert time.monotonic() - started >= 0.2
    assert (got[:7], how) == (b"VERSION", "fin")


def test_a_delay_limits_no_throughput(memcached, dial):
    """20 MB come half a second later: 80 reads one after the other would take 40 s."""
    connection = dial(memcached)
    connection.sendall(SET_BIG)
    assert read(connection, 8) == b"STORED\r\n"
    memcached.delay(0.5)
    started = time.monotonic()
    connection.sendall(b"get big\r\n" * 20)
    assert read(connection, 20 * len(BIG_REPLY)) == BIG_REPLY * 20
    assert 1.0 <= time.monotonic() - started < 20


def test_a_shorter_delay_lets_nothing_overtake(memcached, dial):
    """What was sent under the longer delay still comes first."""
    connection = dial(memcached)
    connection.sendall(SET_BIG)
    assert read(connection, 8) == b"STORED\r\n"
    memcached.delay(0.3, "replies")
    connection.sendall(b"get big\r\n")
    eventually(lambda: memcached.sent == len(SET_BIG) + len(b"get big\r\n"), within=PROMPT)
    time.sleep(0.05)
    memcached.delay(0.0, "replies")
    connection.sendall(b"version\r\n")
    assert read(connection, len(BIG_REPLY)) == BIG_REPLY
    assert connection.recv(100).startswith(b"VERSION")


def test_a_drip_takes_its_time(proxy, dial, kind, reply):
    """A reply of n bytes takes n - 1 pauses, whoever reads."""
    connection = dial(proxy)
    proxy.drip(1, every=0.02)
    started = time.monotonic()
    connection.sendall(ASK[kind])
    assert read(connection, len(reply)) == reply
    assert time.monotonic() - started >= 0.02 * (len(reply) - 1)


def test_requests_can_drip(memcached, dial):
    """The server has to wait for the end of a line."""
    connection = dial(memcached)
    memcached.drip(2, every=0.05, direction="requests")
    started = time.monotonic()
    connection.sendall(b"version\r\n")
    assert connection.recv(100).startswith(b"VERSION")
    assert time.monotonic() - started >= 0.05 * 4


def test_a_megabyte_stays_whole(memcached, dial):
    """Through delay and drip, both ways, every byte arrives in its place."""
    memcached.delay(0.01)
    memcached.drip(40_000, every=0.001, direction="both")
    connection = dial(memcached)
    connection.sendall(SET_BIG)
    assert read(connection, 8) == b"STORED\r\n"
    connection.sendall(b"get big\r\nget big\r\n")
    assert read(connection, 2 * len(BIG_REPLY)) == BIG_REPLY * 2
    assert memcached.received == 8 + 2 * len(BIG_REPLY)


# Cuts.


@pytest.mark.parametrize("how", ["rst", "fin", "stall"])
def test_a_reply_is_cut_at_every_byte(proxy, dial, kind, reply, how):
    """Exactly so many bytes come, from none to all, then the reset, the end, or nothing more."""
    for size in range(len(reply) + 1):
        proxy.heal()
        proxy.cut_after(size, how)
        connection = dial(proxy)
        connection.sendall(ASK[kind])
        assert read(connection, size) == reply[:size]
        if how == "stall":
            connection.settimeout(0.05)
        assert read_all(connection) == (b"", how), size
        connection.close()


def test_what_stalled_arrives_after_heal(proxy, dial, kind, reply):
    """As from a network, the rest of the reply comes late."""
    proxy.cut_after(3, "stall")
    connection = dial(proxy)
    connection.sendall(ASK[kind])
    assert read(connection, 3) == reply[:3]
    assert_silent(connection)
    proxy.heal()
    assert read(connection, len(reply) - 3) == reply[3:]


def test_a_stall_stops_replies_alone(memcached, dial):
    """The server goes on doing what it is asked for."""
    memcached.cut_after(0, "stall")
    connection = dial(memcached)
    for value in (b"x", b"y"):
        connection.sendall(b"set stalled 0 0 1\r\n%s\r\n" % value)
        assert_silent(connection)
    memcached.cut_after(1000)  # another fault, which leaves the stall as it is
    other = dial(memcached)
    other.sendall(b"get stalled\r\n")
    assert other.recv(100) == b"VALUE stalled 0 1\r\ny\r\nEND\r\n"
    assert_silent(connection)


def test_a_cut_counts_from_its_call(proxy, dial, kind, reply):
    """On an open connection, over as many replies as it takes."""
    connection = dial(proxy)
    connection.sendall(ASK[kind] * 2)
    assert read(connection, 2 * len(reply)) == reply * 2
    proxy.cut_after(len(reply) + 2)
    connection.sendall(ASK[kind])
    assert read(connection, len(reply)) == reply
    connection.sendall(ASK[kind])
    assert read_all(connection) == (reply[:2], "rst")


def test_a_cut_is_for_so_many_connections(proxy, dial, kind, reply):
    """The first ones that come so far; the others are left alone, and all of them without a number."""
    proxy.cut_after(1, "fin", connections=2)
    opened = [dial(proxy) for _ in range(3)]
    ends = []
    for number, connection in enumerate([*opened, dial(proxy)]):
        connection.sendall(ASK[kind])
        ends.append(read(connection, 1 if number < 2 else len(reply)))
        if number >= 2:
            connection.settimeout(SILENCE)
        ends.append(read_all(connection))
    cut, whole = [reply[:1], (b"", "fin")], [reply, (b"", "stall")]
    assert ends == cut + cut + whole + whole
    assert proxy.connections == 2
    proxy.cut_after(1, "fin")
    for _ in range(3):
        connection = dial(proxy)
        connection.sendall(ASK[kind])
        assert read_all(connection) == (reply[:1], "fin")


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_slow_reader_gets_all_that_passed(memcached, how):
    """A reset does not take along what the kernel had no room to send yet."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PROMPT)
        connection.connect((memcached.host, memcached.port))
        connection.sendall(SET_BIG)
        assert read(connection, 8) == b"STORED\r\n"
        memcached.cut_after(100_000, how)
        connection.sendall(b"get big\r\n")
        eventually(lambda: memcached.received == 100_008, within=PROMPT)
        time.sleep(0.1)
        assert read(connection, 100_000) == BIG_REPLY[:100_000]
        assert read_all(connection) == (b"", how)


def test_a_fin_is_no_reset():
    """A socket with bytes that nobody has read is closed by FIN alone."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=PROMPT) as client,
    ):
        accepted, _ = listener.accept()
        client.sendall(b"unread")
        prepare(accepted)
        close(accepted)
        assert client.recv(1) == b""
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


# Networks and servers that are gone.


def test_a_black_hole_swallows_and_closes_nothing(proxy, dial, kind, reply):
    """Open connections and new ones; what was sent meanwhile arrives when it has gone."""
    before = dial(proxy)
    before.sendall(ASK[kind])
    assert read(before, len(reply)) == reply
    proxy.blackhole()
    passed = proxy.sent
    after = dial(proxy)
    for connection in (before, after):
        connection.sendall(ASK[kind])
        assert_silent(connection)
    assert (proxy.sent, proxy.received) == (passed, len(reply))
    assert proxy.connections == 2
    proxy.heal()
    for connection in (before, after):
        assert read(connection, len(reply)) == reply


def test_a_client_can_leave_a_black_hole(memcached, dial):
    """It is counted as closed at once, and the server learns of it after the fault."""
    connection = dial(memcached)
    memcached.blackhole()
    assert memcached.connections == 1
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    assert memcached.connections == 0
    memcached.heal()
    again = dial(memcached)
    again.sendall(b"version\r\n")
    assert again.recv(100).startswith(b"VERSION")


def test_a_black_hole_can_swallow_dials(proxy, dial, kind, reply):
    """They wait for an answer, and are neither accepted nor refused."""
    before = dial(proxy)
    proxy.blackhole(dials=True)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            dial(proxy, timeout=SILENCE)
    before.sendall(ASK[kind])
    assert_silent(before)
    assert proxy.accepted == 1
    proxy.heal()
    assert proxy.accepted == 1
    for connection in (before, dial(proxy)):
        if connection is not before:
            connection.sendall(ASK[kind])
        assert read(connection, len(reply)) == reply


def test_a_lost_server_takes_everything_and_says_nothing(proxy, dial, kind, reply):
    """Neither to requests nor to the client's own close; after heal it knows of no connection."""
    before = dial(proxy)
    before.sendall(ASK[kind])
    assert read(before, len(reply)) == reply
    proxy.half_open()
    connections = [before, dial(proxy)]
    for connection in connections:
        connection.sendall(ASK[kind] * 1_000_000)  # more than any buffer holds
        assert_silent(connection)
        connection.shutdown(socket.SHUT_WR)
        assert_silent(connection)
    assert proxy.sent == len(ASK[kind])
    proxy.heal()
    for connection in connections:
        assert read_all(connection) == (b"", "rst")
    again = dial(proxy)
    again.sendall(ASK[kind])
    assert read(again, len(reply)) == reply


def test_a_lost_server_takes_along_what_it_had_said(memcached, dial):
    """Replies that wait for a slow reader do not arrive, and the proxy does not spin over them."""
    connection = dial(memcached)
    connection.sendall(SET_BIG + b"get big\r\n" * 50)
    assert read(connection, 8) == b"STORED\r\n"
    time.sleep(0.2)  # in which the buffers fill
    memcached.half_open()
    connection.settimeout(1.0)
    got, how = read_all(connection)
    assert (len(got), how) == (memcached.received - 8, "stall")
    assert len(got) < 50 * len(BIG_REPLY)
    before = time.process_time()
    assert_silent(connection)
    assert time.process_time() - before < SILENCE / 2


def test_refused_dials_leave_open_connections_alone(proxy, dial, kind, reply):
    """A connection made before the call goes on, whether or not a byte has passed."""
    before = [dial(proxy) for _ in range(5)]
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
    assert (proxy.connections, proxy.accepted) == (5, 5)
    for connection in before:
        connection.sendall(ASK[kind])
        assert read(connection, len(reply)) == reply
    proxy.heal()
    after = dial(proxy)
    after.sendall(ASK[kind])
    assert read(after, len(reply)) == reply


def test_dials_can_be_accepted_and_reset(proxy, dial, kind, reply):
    """As by a balancer without a server: each counts, none lives."""
    before = dial(proxy)
    proxy.refuse("rst")
    for _ in range(3):
        with contextlib.suppress(ConnectionResetError):  # perhaps while it is dialed
            assert read_all(dial(proxy)) == (b"", "rst")
    assert (proxy.connections, proxy.accepted) == (1, 4)
    before.sendall(ASK[kind])
    assert read(before, len(reply)) == reply


def test_a_fault_follows_another(proxy, dial, kind, reply):
    """From any to any, and back to health, at the same port."""
    port = proxy.port
    faults = [
        proxy.refuse,
        lambda: proxy.refuse("rst"),
        lambda: proxy.blackhole(dials=True),
        proxy.half_open,
        proxy.blackhole,
        lambda: proxy.cut_after(0),
        lambda: proxy.delay(5),
        lambda: proxy.drip(1, every=5, direction="both"),
    ]
    order = random.Random(3)
    for _ in range(60):
        order.choice(faults)()
        order.choice(faults)()
        if order.random() < 0.5:
            with contextlib.suppress(OSError):
                dial(proxy, timeout=0.01).sendall(ASK[kind])
        proxy.heal()
        connection = dial(proxy)
        connection.sendall(ASK[kind])
        assert read(connection, len(reply)) == reply
        connection.close()
    assert proxy.port == port


def test_heal_lets_pass_at_once_what_was_held_back(memcached, dial):
    """An hour's delay and an hour's drip end with it."""
    memcached.delay(3600)
    memcached.drip(1, every=3600, direction="both")
    connection = dial(memcached)
    connection.sendall(b"version\r\n")
    assert_silent(connection)
    memcached.heal()
    assert connection.recv(100).startswith(b"VERSION")


@pytest.mark.parametrize(
    "fault",
    [
        lambda proxy: proxy.blackhole(),
        lambda proxy: proxy.blackhole(dials=True),
        lambda proxy: proxy.half_open(),
        lambda proxy: proxy.refuse(),
        lambda proxy: proxy.cut_after(0, "stall"),
        lambda proxy: proxy.delay(3600),
        lambda proxy: proxy.drip(1, 3600),
        lambda proxy: proxy.heal(),
    ],
)
@pytest.mark.parametrize("leave", [False, True])
def test_a_fault_costs_no_time(memcached, dial, fault, leave):
    """Whatever waits, the proxy waits with it: it does not spin."""
    connections = [dial(memcached) for _ in range(3)]
    connections[0].sendall(SET_BIG + b"get big\r\n" * 50)  # more than the buffers hold
    assert read(connections[0], 8) == b"STORED\r\n"
    fault(memcached)
    connections[1].sendall(b"version\r\n")
    connections[2].sendall(b"quit\r\n")
    if leave:
        for connection in connections:
            connection.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.2


def test_the_last_drip_counts(memcached, dial):
    """A drop does not wait for the time that the drip of before had set."""
    memcached.drip(1, every=3600)
    connection = dial(memcached)
    connection.sendall(b"version\r\n")
    assert connection.recv(1) == b"V"
    memcached.drip(2, every=0.001)
    assert read(connection, 6) == b"ERSION"


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda proxy: proxy.delay(-1), "seconds must be a number from 0"),
        (lambda proxy: proxy.delay(float("nan")), "not nan"),
        (lambda proxy: proxy.delay("1"), "not '1'"),
        (lambda proxy: proxy.delay(1, "up"), "one of both, requests, replies"),
        (lambda proxy: proxy.drip(0, 1), "size must be a whole number from 1"),
        (lambda proxy: proxy.drip(1, -1), "seconds"),
        (lambda proxy: proxy.cut_after(-1), "size must be a whole number from 0"),
        (lambda proxy: proxy.cut_after(1.5), "not 1.5"),
        (lambda proxy: proxy.cut_after(1, "FIN"), "one of rst, fin, stall"),
        (lambda proxy: proxy.cut_after(1, connections=0), "connections must be"),
        (lambda proxy: proxy.refuse("fin"), "one of refused, rst"),
    ],
)
def test_what_cannot_be_done_is_told(memcached, call, fault):
    """Arguments are checked where they are given, and change nothing."""
    with pytest.raises(ConfigurationError, match=fault):
        call(memcached)


# Life and death.


def test_closing_leaves_nothing(memcached_servers, dial):
    """No thread, no descriptor, and clients see the end."""
    gc.collect()  # what other tests have left must not count
    before = descriptors(), threads()
    proxy = FaultProxy(memcached_servers[0].url)
    assert threads() > before[1]
    connections = [dial(proxy) for _ in range(10)]
    for connection in connections:
        connection.sendall(b"version\r\n")
        assert connection.recv(100)
    for fault in (proxy.refuse, proxy.half_open, lambda: proxy.blackhole(dials=True)):
        fault()
    proxy.close()
    for connection in connections:
        assert read_all(connection)[1] == "fin"
        connection.close()
    assert descriptors() <= before[0]
    eventually(lambda: threads() <= before[1], within=PROMPT)


def test_closing_twice_does_nothing_more(memcached_servers):
    """From any thread, and from several at once; later faults are an error, counters are not."""
    proxy = FaultProxy(memcached_servers[0].url)
    closers = [threading.Thread(target=proxy.close, daemon=True) for _ in range(5)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(PROMPT)
        assert not closer.is_alive()
    proxy.close()
    with pytest.raises(RuntimeError, match="is closed"):
        proxy.delay(1)
    assert proxy.accepted == 0


def test_closing_while_others_steer(memcached_servers):
    """Every call returns or raises; none waits for ever."""
    for _ in range(20):
        proxy = FaultProxy(memcached_servers[0].url)
        ended = []

        def steer(proxy=proxy, ended=ended):
            try:
                while True:
                    proxy.delay(0.01)
            except RuntimeError:
                ended.append(True)

        steering = [threading.Thread(target=steer, daemon=True) for _ in range(3)]
        for thread in steering:
            thread.start()
        proxy.close()
        for thread in steering:
            thread.join(PROMPT)
        assert ended == [True] * 3


def test_a_proxy_that_was_dropped_ends(memcached_servers):
    """Nobody closes it: its thread and descriptors go with it."""
    gc.collect()
    before = descriptors(), threads()
    proxy = FaultProxy(memcached_servers[0].url)
    proxy.delay(1)
    assert descriptors() > before[0]
    del proxy
    gc.collect()
    eventually(lambda: descriptors() <= before[0] and threads() <= before[1], within=PROMPT)


def test_a_proxy_lives_through_a_lack_of_descriptors(memcached, dial):
    """A connection that cannot be accepted waits until it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    connection = socket.socket()
    connection.settimeout(PROMPT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(socket.socket())
        connection.connect((memcached.host, memcached.port))
        connection.sendall(b"version\r\n")
        assert memcached.accepted == 0
    finally:
        for one in taken:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with connection:
        assert connection.recv(100).startswith(b"VERSION")
    dial(memcached)
    assert memcached.accepted == 2


def run(program, *arguments):
    """Run a program of its own with every warning an error; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_process_ends_with_its_proxy_open(memcached_servers):
    """Nothing waits for the thread, and nothing is written to stderr."""
    program = """
import socket, sys
from shardcache.testing import FaultProxy
proxy = FaultProxy(sys.argv[1])
proxy.half_open()
connection = socket.create_connection((proxy.host, proxy.port))
connection.sendall(b"version\\r\\n")
print(proxy.connections)
connection.close()
"""
    assert run(program, memcached_servers[0].url) == "1\n"


def test_a_forked_child_has_no_part_in_it(memcached_servers):
    """It runs no thread, keeps no socket of the proxy open, and cannot steer it; the parent can."""
    program = """
import os, socket, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from shardcache.testing import FaultProxy

proxy = FaultProxy(sys.argv[1])
connection = socket.create_connection((proxy.host, proxy.port), timeout=30)
connection.sendall(b"version\\r\\n")
reply = connection.recv(100)
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    sockets = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{n}")]
    assert sum(name.startswith("socket:") for name in sockets) == 1, sockets  # the client's own
    assert len(os.listdir("/proc/self/task")) == 1
    for act in (proxy.heal, lambda: proxy.connections, lambda: proxy.delay(1)):
        try:
            act()
        except RuntimeError as error:
            assert "not in this child" in str(error)
        else:
            raise AssertionError(act)
    proxy.close()
    os.write(ready[1], b"!")
    os.read(go[0], 1)
    os._exit(0)
assert os.read(ready[0], 1) == b"!"
connection.sendall(b"version\\r\\n")
assert connection.recv(100) == reply
proxy.cut_after(3, "fin")
connection.sendall(b"version\\r\\n")
assert connection.recv(100) == reply[:3]
assert connection.recv(100) == b""  # though the child is alive
os.write(go[1], b"!")
assert os.waitpid(child, 0)[1] == 0
proxy.close()
connection.close()
print("done")
"""
    assert run(program, memcached_servers[0].url) == "done\n"


def test_it_runs_under_gevent(memcached_servers):
    """In a native thread: it goes on while no greenlet can, and greenlets go on beside it."""
    program = """
from gevent import monkey
monkey.patch_all()
import os, socket, sys, time
import _socket
import gevent
from shardcache import Client, NodeTimeoutError
from shardcache.testing import FaultProxy

with FaultProxy(sys.argv[1]) as proxy:
    client = Client(proxy.url, on_error="raise", timeout=2)
    client.set("k", 1)
    assert client.get("k") == 1
    proxy.blackhole()
    def get():
        try:
            return client.get("k")
        except NodeTimeoutError as error:
            return error

    late = gevent.spawn(get)
    turns = 0
    while not late.dead:
        turns += 1
        gevent.sleep(0.01)
    assert isinstance(late.value, NodeTimeoutError), late.value
    assert turns > 5, turns
    proxy.heal()
    blocking = _socket.socket()
    blocking.connect((proxy.host, proxy.port))
    blocking.send(b"version\\r\\n")
    assert blocking.recv(100).startswith(b"VERSION")  # nothing else runs in this thread meanwhile
    blocking.close()
    proxy.refuse()
    try:
        socket.create_connection((proxy.host, proxy.port))
    except ConnectionRefusedError:
        print("refused")
    assert len(os.listdir("/proc/self/task")) >= 2
    client.close()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, memcached_servers[0].url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\ndone\n", "")


async def test_it_takes_no_loop_of_the_tests(memcached):
    """A proxy is steered and closed from a running loop."""
    reader, writer = await asyncio.open_connection(memcached.host, memcached.port)
    writer.write(b"version\r\n")
    assert (await reader.read(100)).startswith(b"VERSION")
    memcached.cut_after(0, "fin")
    writer.write(b"version\r\n")
    assert await reader.read(100) == b""
    writer.close()
    await writer.wait_closed()
    memcached.close()
