"""One command and its reply over a connection that blocks, or that is driven step by step."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Sequence
from itertools import count
from socket import MSG_DONTWAIT
from threading import get_ident, main_thread
from typing import Final

from shardcache.backends.base import Wait
from shardcache.backends.transport.pool import SLACK, Connection
from shardcache.backends.transport.sockets import (
    FIRST_READ,
    LARGE_READ,
    READ,
    WOULD_BLOCK,
    part_last_byte,
)
from shardcache.backends.wire import UNUSUAL
from shardcache.core.capabilities import IDEMPOTENT
from shardcache.core.commands import Command, Reply
from shardcache.errors import ShardCacheError, TooManyConnectionsError

READS: Final = 3  # reads of that size before other exchanges and the clock get a turn

CLOSED: Final = "closed by the node"

MAIN: Final = main_thread().ident

Steps = Generator[Wait, None, Reply]


def ask(connection: Connection, chunk: bytes, deadline: float, *, started: bool) -> Reply:
    """Send one small command and wait for its reply: the hot path of a write.

    The command is `started`, or else the wire expects its reply already.
    """
    seconds = deadline - time.monotonic()
    if not seconds <= connection.armed <= seconds + SLACK or seconds <= 0:
        connection.arm(seconds)
    sent = connection.send(chunk)
    if sent < len(chunk):
        connection.sock.sendall(memoryview(chunk)[sent:])
    if not connection.plain:
        return _read(connection, seconds, deadline)
    # The first turn of `_read`, which is the last as a rule: to save two calls.
    if get_ident() == MAIN and not connection.poll(seconds * 1000):
        raise TimeoutError
    data = connection.recv(FIRST_READ)
    if started:
        reply = connection.end(data)
        if reply is not UNUSUAL:
            return reply
        connection.expect()
    if not data:
        raise ConnectionResetError(CLOSED)
    connection.answered = True
    replies = connection.wire.feed(data)
    return replies[0] if replies else _read_rest(connection, deadline)


def store(connection: Connection, chunks: Sequence[bytes], deadline: float) -> Reply:
    """Send a large value at once over a plain socket, and wait for the line that answers it.

    A write that blocks takes two thirds of the time of writes and polls in turn. A line is so short that
    the server never waits for it to be read.
    """
    connection.arm(deadline - time.monotonic())
    sent = connection.sock.sendmsg(chunks)
    if sent < sum(map(len, chunks)):  # a signal came, or the deadline
        _send_rest(connection, b"".join(chunks)[sent:], deadline)
    seconds = deadline - time.monotonic()
    connection.arm(seconds)
    return _read(connection, seconds, deadline)


def _send_rest(connection: Connection, rest: bytes, deadline: float) -> None:
    """Send the rest of a command, whatever interrupts it, by the deadline."""
    unsent = deque((memoryview(rest),))
    writable = select.poll()
    writable.register(connection.sock, select.POLLOUT)
    while unsent:
        left = deadline - time.monotonic()
        if left <= 0 or not writable.poll(left * 1000):
            raise TimeoutError
        _push(connection, unsent)


def _read(connection: Connection, seconds: float, deadline: float, *, begun: bool = False) -> Reply:
    """Wait for the reply to a command that was sent, in the `seconds` that are left.

    Of a reply that has `begun` to arrive, the rest of a large value goes where it stays: half of the time of
    such a read is copying.
    """
    polls = connection.plain and get_ident() == MAIN  # only the main thread handles signals
    size = FIRST_READ
    while True:
        if polls and not connection.poll(seconds * 1000):
            raise TimeoutError
        # Taken no earlier: memory that is still lent when an error ends the call cannot be freed.
        room = connection.room() if begun else None
        if room is None:
            try:
                data = connection.recv(size)
            except TimeoutError:
                data = connection.recv_after_timeout(size)
            replies = _feed(connection, data)
        else:
            replies = _receive_into(connection, room)
        if replies:
            return replies[0]
        connection.arrived = now = time.monotonic()
        seconds, size, begun = deadline - now, READ, True
        connection.arm(seconds)


def _receive_into(connection: Connection, room: memoryview, flags: int = 0) -> list[Reply]:
    """Receive a part of a large value where it stays; return the replies that are complete with it."""
    with room:
        count = connection.sock.recv_into(room, 0, flags)
    if not count:
        raise ConnectionResetError(CLOSED)
    connection.answered = True
    return connection.take(count)


def _feed(connection: Connection, data: bytes) -> list[Reply]:
    """Return the replies that are complete with these bytes; raise if there are none."""
    if not data:
        raise ConnectionResetError(CLOSED)
    connection.answered = True
    return connection.wire.feed(data)


def read_on(connection: Connection, data: bytes, deadline: float) -> Reply:
    """Wait for the rest of a reply that is not of the usual kind; `data` is its beginning."""
    connection.expect_get()
    replies = _feed(connection, data)
    if replies:
        return replies[0]
    return _read_rest(connection, deadline)


def _read_rest(connection: Connection, deadline: float) -> Reply:
    """Wait for the rest of a reply of which a part has just arrived."""
    connection.arrived = now = time.monotonic()
    connection.arm(deadline - now)
    return _read(connection, deadline - now, deadline, begun=True)


def transfer(connection: Connection, chunks: Sequence[bytes]) -> Steps:
    """Send chunks while receiving the reply, so that neither side waits for the other."""
    unsent: deque[memoryview] = deque(memoryview(chunk) for chunk in chunks)
    if connection.secure and sum(map(len, chunks)) > connection.whole:
        part_last_byte(unsent)
    descriptor = connection.sock.fileno()
    _push(connection, unsent)
    while True:
        yield Wait(descriptor, select.POLLIN | select.POLLOUT if unsent else select.POLLIN)
        replies = pull(connection)
        if replies:
            return replies[0]
        _push(connection, unsent)


def _push(connection: Connection, unsent: deque[memoryview]) -> None:
    """Send until all is sent or the socket takes no more."""
    try:
        while unsent:
            sent = connection.try_send_all(unsent)
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = unsent[0][sent:]
    except WOULD_BLOCK:
        return


def pull(connection: Connection) -> list[Reply]:
    """Receive until a reply is complete, no bytes are left, or the clock must be checked."""
    size, plain, arrived = connection.first_read, connection.plain, False
    connection.first_read = FIRST_READ
    for turn in count():
        try:  # the text of `try_recv` and `_feed`, to save the calls
            data = connection.recv(size, MSG_DONTWAIT) if plain else connection.try_recv(size)
            if not data:
                raise ConnectionResetError(CLOSED)
            connection.answered = arrived = True
            replies = connection.wire.feed(data)
            if len(data) >= FIRST_READ:  # as the next reply will often be
                connection.first_read = LARGE_READ
            if not replies and (room := connection.room()) is not None:
                replies = _receive_into(connection, room, MSG_DONTWAIT)
        except WOULD_BLOCK:
            break
        if replies:
            return replies
        # TLS may buffer bytes that no poll reports.
        if plain and (len(data) < size or turn == READS):
            break
        size = READ
    if arrived:
        connection.arrived = time.monotonic()
    return []


def read_refusal(connection: Connection) -> TooManyConnectionsError | None:
    """Return what a server said before it closed a connection for lack of room."""
    try:
        pull(connection)
    except TooManyConnectionsError as error:
        return error
    except (OSError, ShardCacheError):
        return None
    return None


def may_retry(connection: Connection, command: Command, error: OSError) -> bool:
    """Return whether a retry is harmless: no byte was answered, and the command is idempotent."""
    dead = isinstance(error, ConnectionError)
    return dead and not connection.answered and type(command) in IDEMPOTENT
