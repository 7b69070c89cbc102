"""The proxy delays and drips, and lets nothing overtake."""

from __future__ import annotations

import time

import pytest

from shardcache.testing.waiting import eventually
from testing.lines import ASK, BIG_REPLY, PROMPT, SET_BIG, read, read_all


@pytest.mark.parametrize(
    ("direction", "least"), [("requests", 0.1), ("replies", 0.1), ("both", 0.2)]
)
def test_a_delay_takes_its_time(memcached, dial, direction, least):
    """On the way there, back, or both; on open and new connections."""
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
    """A reply of n bytes takes n - 1 pauses."""
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


def test_the_last_drip_counts(memcached, dial):
    """A byte does not wait for the pause of an earlier drip."""
    memcached.drip(1, every=3600)
    connection = dial(memcached)
    connection.sendall(b"version\r\n")
    assert connection.recv(1) == b"V"
    memcached.drip(2, every=0.001)
    assert read(connection, 6) == b"ERSION"
