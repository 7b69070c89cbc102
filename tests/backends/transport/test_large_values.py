"""A large value that goes straight from or to a socket keeps the promises of every other one."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from backends.fakes import fake_node, token_of
from shardcache import Client, NodeProtocolError, NodeTimeoutError, NodeUnavailableError

VALUE = bytes(range(256)) * 4_000
HUGE = 32 << 20  # bytes: more than the buffers of two sockets


def read_command(connection, size):
    """Return the first line of a store, and its value of so many bytes."""
    data = bytearray()
    while b"\r\n" not in data or len(data) < data.index(b"\r\n") + size + 4:
        part = connection.recv(1 << 20)
        if not part:
            break
        data += part
    line, _, rest = bytes(data).partition(b"\r\n")
    return line + b"\r\n", rest[:size]


@pytest.fixture(params=["the main thread", "another thread"])
def act(request):
    """Return a function that calls another in a thread; the main one polls before it reads."""
    if request.param == "the main thread":
        return lambda call: call()

    def in_thread(call):
        outcomes = []

        def run():
            try:
                outcomes.append(call())
            except Exception as error:  # noqa: BLE001 - raised below
                outcomes.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return outcomes[0]

    return in_thread


@pytest.fixture
def ticks():
    """Return what a signal is noted in that interrupts every wait of the main thread."""
    noted = []
    before = signal.signal(signal.SIGALRM, lambda *_: noted.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    yield noted
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_value_in_pieces_is_whole(act):
    """Whether the pieces come at once or with pauses, and whatever comes first."""

    def behave(connection, _):
        while request := connection.recv(4096):
            reply = b"VA %d f0 %b\r\n%b\r\n" % (len(VALUE), token_of(request), VALUE)
            for end in (20, 30_000, 500_000, len(reply) - 1):
                connection.sendall(reply[:end])
                reply = reply[end:]
                time.sleep(0.02)
            connection.sendall(reply)

    with (
        fake_node(behave) as address,
        Client(f"memcached://{address}?max_value_bytes=2000000", timeout=20) as client,
    ):
        for _ in range(3):
            assert act(lambda: client.get("k")) == VALUE


@pytest.mark.parametrize("ending", [b"xx", b"\r\rVA"])
def test_a_value_of_another_length_is_an_error(act, ending):
    """The bytes after it are no line end."""

    def behave(connection, _):
        connection.sendall(b"EN %b\r\n" % token_of(connection.recv(4096)))
        token = token_of(connection.recv(4096))
        connection.sendall(b"VA 100000 f0 %b\r\n%b" % (token, b"x" * 40_000))
        time.sleep(0.05)
        connection.sendall(b"x" * 60_000 + ending)
        connection.recv(1)

    with (
        fake_node(behave) as address,
        Client(f"memcached://{address}", timeout=20, on_error="raise") as client,
    ):
        assert client.get("k") is None
        with pytest.raises(NodeProtocolError, match="longer or shorter"):
            act(lambda: client.get("k"))


def test_a_value_that_drips_has_one_deadline(act):
    """Each piece is in time for the next; the call is not."""

    def behave(connection, _):
        connection.sendall(b"EN %b\r\n" % token_of(connection.recv(4096)))
        token = token_of(connection.recv(4096))
        connection.sendall(b"VA 100000 f0 %b\r\n%b" % (token, b"x" * 20_000))
        for _ in range(70):
            connection.sendall(b"x" * 1000)
            time.sleep(0.09)

    with (
        fake_node(behave) as address,
        Client(f"memcached://{address}", on_error="raise", timeout=0.3) as client,
    ):
        assert client.get("k") is None
        started = time.monotonic()
        with pytest.raises(NodeTimeoutError):
            act(lambda: client.get("k"))
        assert time.monotonic() - started < 1.5


def test_a_node_that_closes_within_a_value_is_an_error(act):
    """What came of the value is not returned."""

    def behave(connection, _):
        connection.sendall(b"EN %b\r\n" % token_of(connection.recv(4096)))
        token = token_of(connection.recv(4096))
        connection.sendall(b"VA 100000 f0 %b\r\n%b" % (token, b"x" * 60_000))
        time.sleep(0.05)
        connection.close()

    with (
        fake_node(behave) as address,
        Client(f"memcached://{address}", on_error="raise", timeout=20) as client,
    ):
        assert client.get("k") is None
        with pytest.raises(NodeUnavailableError, match="lost the connection"):
            act(lambda: client.get("k"))


def test_a_store_goes_on_after_a_signal(ticks):
    """Signals that interrupt a write leave out no byte of it."""
    value, stored = bytes(range(256)) * (HUGE // 256), []

    def behave(connection, _):
        connection.sendall(b"EN %b\r\n" % token_of(connection.recv(4096)))
        time.sleep(0.3)
        line, data = read_command(connection, HUGE)
        stored.append(data)
        connection.sendall(b"HD %b\r\n" % token_of(line))

    with (
        fake_node(behave) as address,
        Client(f"memcached://{address}?max_value_bytes={2 * HUGE}", timeout=30) as client,
    ):
        assert client.get("k") is None
        assert client.set("k", value) is True
        assert stored == [value]
        assert ticks


@pytest.mark.parametrize("kind", ["memcached", "redis"])
def test_signals_extend_no_deadline_of_a_store(kind, request, ticks):
    """A stopped server takes what its buffers hold, and the call ends in its time."""
    server = request.getfixturevalue(f"make_{kind}")()
    with Client(f"{server.url}?max_value_bytes={2 * HUGE}", timeout=0.3) as client:
        client.set("k", 1)
        server.pause()
        started = time.monotonic()
        assert client.set("k", bytes(HUGE)) is False
        assert time.monotonic() - started < 2
        assert ticks
