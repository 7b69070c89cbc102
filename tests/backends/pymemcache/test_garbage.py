"""Bytes of a server that are no reply are an error, and close the connection."""

from __future__ import annotations

import threading
import time

import pytest

from backends.pymemcache.asking import TEXT, ask, fake_server, hang_up, make_backend
from shardcache.core.commands import Delete, DeleteMany, FlushAll, Get, Gets, Incr, Set, Touch
from shardcache.core.health import FailureKind, failure_kind
from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnavailableError,
    TooManyConnectionsError,
    ValueTooLargeError,
)


def test_a_connection_that_the_node_closes_is_lost():
    """One loss alone ejects no node."""
    with fake_server(hang_up) as port:
        backend = make_backend(port)
        with pytest.raises(NodeUnavailableError, match="instead of answering") as raised:
            ask(backend, Set(b"k", TEXT))
        assert failure_kind(raised.value) is FailureKind.DISCONNECT
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
    """Bytes that are no reply to a `get` are an error, never a value, and close the connection."""
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
def test_an_unknown_line_is_an_error(command, answer):
    """Where pymemcache itself would return `False`, we raise."""
    with fake_server(answer) as port:
        backend = make_backend(port)
        try:
            reply = ask(backend, command)
        except NodeProtocolError as error:
            reply = [error]
        assert isinstance(reply[0], NodeProtocolError)
        backend.close()


def test_an_unrequested_reply_answers_no_later_call():
    """It closes the connection."""
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
    """Refusals are told from protocol errors, and pymemcache's error is the cause."""
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
        connection = backend._borrow(time.monotonic() + 5)
        received = connection.recv

        def interrupted(size):
            received(size)
            raise KeyboardInterrupt

        connection.recv = interrupted
        backend.pool.put(connection)
        with pytest.raises(KeyboardInterrupt):
            ask(backend, Get(b"k"))
        assert backend.pool.open == 0
        backend.close()
