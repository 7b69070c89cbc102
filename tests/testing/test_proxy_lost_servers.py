"""The proxy swallows, loses or refuses, as a network without a server does; one fault follows another."""

from __future__ import annotations

import contextlib
import random
import socket
import time

import pytest

from testing.lines import ASK, BIG_REPLY, SET_BIG, SILENCE, assert_silent, read, read_all


def test_a_black_hole_swallows_and_closes_nothing(proxy, dial, kind, reply):
    """Open and new connections; bytes sent meanwhile arrive when it ends."""
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
    """It counts as closed at once, and the server learns of it after the fault."""
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
    """Requests and the client's own close; after heal it knows of no connection."""
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


def test_a_lost_server_drops_its_unread_replies(memcached, dial):
    """The proxy does not spin over them."""
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
    """As by a balancer without a server: each dial counts, none stays."""
    before = dial(proxy)
    proxy.refuse("rst")
    for _ in range(3):
        with contextlib.suppress(ConnectionResetError):  # perhaps while it is dialed
            assert read_all(dial(proxy)) == (b"", "rst")
    assert (proxy.connections, proxy.accepted) == (1, 4)
    before.sendall(ASK[kind])
    assert read(before, len(reply)) == reply


def test_any_fault_can_follow_any_other(proxy, dial, kind, reply):
    """And health any fault, at the same port."""
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


def test_heal_releases_at_once_what_was_held_back(memcached, dial):
    """An hour's delay and an hour's drip end with it."""
    memcached.delay(3600)
    memcached.drip(1, every=3600, direction="both")
    connection = dial(memcached)
    connection.sendall(b"version\r\n")
    assert_silent(connection)
    memcached.heal()
    assert connection.recv(100).startswith(b"VERSION")


@pytest.mark.slow
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
def test_a_fault_costs_no_cpu(memcached, dial, fault, leave):
    """The proxy waits, and does not spin."""
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
