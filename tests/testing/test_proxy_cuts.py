"""The proxy cuts and stalls replies, to the byte."""

from __future__ import annotations

import socket
import time

import pytest

from shardcache.testing.faults.sockets import close, prepare
from shardcache.testing.waiting import eventually
from testing.lines import ASK, BIG_REPLY, PROMPT, SET_BIG, SILENCE, assert_silent, read, read_all


@pytest.mark.parametrize("how", ["rst", "fin", "stall"])
def test_a_reply_is_cut_at_every_byte(proxy, dial, kind, reply, how):
    """The bytes asked for arrive, from none to all, then the reset, the end, or nothing."""
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


def test_a_stalled_reply_arrives_after_heal(proxy, dial, kind, reply):
    """The rest comes late, as from a network."""
    proxy.cut_after(3, "stall")
    connection = dial(proxy)
    connection.sendall(ASK[kind])
    assert read(connection, 3) == reply[:3]
    assert_silent(connection)
    proxy.heal()
    assert read(connection, len(reply) - 3) == reply[3:]


def test_a_stall_stops_replies_alone(memcached, dial):
    """The server goes on executing commands."""
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


def test_a_cut_has_a_number_of_connections(proxy, dial, kind, reply):
    """The first ones that reach it; without a number, all."""
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
    """A reset does not drop bytes that the kernel had no room to send yet."""
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
    """A socket with unread bytes is closed by FIN alone."""
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
