"""Many nodes asked at once in the usual way: small commands over idle connections, one reply after the other.

This does what `io.fanout.FanOut` does, without an exchange for each node and without a poll for all.
Whatever is of another kind goes on as an exchange, from where it is: a node without an idle connection, a
large command, a reply that is late or comes in parts, an error. `tests/backends/transport/test_together.py`
compares both ways.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from socket import MSG_DONTWAIT
from typing import TYPE_CHECKING, Final

from shardcache.backends.base import Exchange
from shardcache.backends.transport.exchanges import SmallExchange, SocketExchange
from shardcache.backends.transport.pool import Connection
from shardcache.backends.transport.sockets import (
    FIRST_READ,
    LARGE_READ,
    READ,
    RESTED,
    SMALL,
    WOULD_BLOCK,
)
from shardcache.backends.transport.transfer import CLOSED
from shardcache.core.commands import Command, Reply
from shardcache.errors import ConfigurationError, NodeError

if TYPE_CHECKING:  # it has `ask_together`
    from shardcache.backends.transport.blocking import SocketBackend

# Seconds for which one reply is waited for while those of other nodes may be arriving: a node that is late
# must not keep them waiting, for they may have much to send.
PATIENCE: Final = 0.005


class Together:
    """Commands to many nodes: their replies go to `answers`, each to its place, or exchanges to `begun`.

    `send` and `receive` make no calls for a usual node but to its socket, its wire and its pool: what is
    called here is called for each node of each call. That, and no poll for all, saves a twentieth of a
    batch of 100 keys over eight nodes.
    """

    __slots__ = ("_asks", "_deadline", "_sent", "answers", "begun")

    def __init__(self, asks: Sequence[tuple[SocketBackend, Command]], deadline: float) -> None:
        self._asks = asks
        self._deadline = deadline
        # The connections on which a whole command was sent, each with the place of its node.
        self._sent: deque[tuple[int, Connection]] = deque()
        self.answers: list[tuple[Reply, float]] = [(None, 0.0)] * len(asks)
        self.begun: list[tuple[int, Exchange]] = []

    def send(self) -> None:  # noqa: C901 - see above
        """Send to every node: over an idle connection that works, or as `begin` does."""
        now, sent, kind = time.monotonic(), self._sent, type(self._asks[0][0])
        for place, (backend, command) in enumerate(self._asks):
            try:
                connection = backend.pool.idle.pop() if type(backend) is kind else None
            except IndexError:
                connection = None
            if connection is None:
                self._begin(place)
                continue
            if not connection.plain or (now - connection.since >= RESTED and connection.stale):
                backend.pool.idle.append(connection)
                self._begin(place)
                continue
            try:  # the text of `encode`, to save the call
                chunks = connection.wire.encode(command)
            except BaseException as error:
                backend.pool.put(connection)
                if not isinstance(error, NodeError):
                    raise
                self.answers[place] = error, now
                continue
            chunk = chunks[0]
            if len(chunks) > 1 or len(chunk) > SMALL:
                self._transfer(place, connection, chunks)
                continue
            try:
                count = connection.send(chunk, MSG_DONTWAIT)
            except WOULD_BLOCK:
                count = 0
            except BaseException as error:  # noqa: BLE001 - `fail` raises an interrupt
                self._exchange(place, connection).fail(connection, error)
                continue
            if count == len(chunk):
                sent.append((place, connection))
            else:
                self._transfer(place, connection, [chunk[count:]])

    def receive(self) -> None:
        """Read the reply of each node in turn; if one is late, leave the others to exchanges."""
        asks, answers, sent = self._asks, self.answers, self._sent
        patient = not self.begun
        while sent:
            place, connection = sent.popleft()
            try:  # the text of `pull`, for a reply that is there
                size = connection.first_read
                data = connection.recv(size, MSG_DONTWAIT)
                connection.answered = bool(data)
                if len(data) == size:  # a reply that is whole is read in two thirds of the time
                    data += _more(connection)
                # The next reply will often be as large as this one.
                connection.first_read = FIRST_READ if len(data) < FIRST_READ else LARGE_READ
                replies = connection.wire.feed(data) if data else None
            except WOULD_BLOCK:
                sent.appendleft((place, connection))
                if patient and self._wait(connection):
                    continue
                break
            except BaseException as error:  # noqa: BLE001 - as above
                self._exchange(place, connection).fail(connection, error)
                continue
            if replies:
                asks[place][0].pool.put(connection)
                reply = replies[0]
                if isinstance(reply, ConfigurationError):  # as `result` of an exchange does
                    raise reply
                answers[place] = reply, time.monotonic()
                continue
            # It comes in parts, which may take long, or the node has closed the connection.
            patient = False
            exchange = self._exchange(place, connection)
            if data:
                connection.arrived = time.monotonic()
            else:
                exchange.fail(connection, ConnectionResetError(CLOSED))
        while sent:
            self._exchange(*sent.popleft())

    def _wait(self, connection: Connection) -> bool:
        """Wait a moment for a reply; return whether some of it has come."""
        seconds = min(PATIENCE, self._deadline - time.monotonic())
        return seconds > 0 and bool(connection.poll(seconds * 1000))

    def _begin(self, place: int) -> None:
        """Ask a node in the general way."""
        backend, command = self._asks[place]
        try:
            self.begun.append((place, backend.begin(command, self._deadline)))
        except NodeError as error:
            self.answers[place] = error, time.monotonic()

    def _transfer(self, place: int, connection: Connection, chunks: Sequence[bytes]) -> None:
        """Send a large command, or the rest of one, in the general way."""
        backend, command = self._asks[place]
        steps = backend.exchange_on(connection, command, chunks, self._deadline)
        self.begun.append((place, SocketExchange(steps)))

    def _exchange(self, place: int, connection: Connection) -> SmallExchange:
        """Go on in the general way after a command was sent; return the exchange."""
        backend, command = self._asks[place]
        exchange = SmallExchange(backend, self._deadline, connection, command)
        self.begun.append((place, exchange))
        return exchange

    def abandon(self) -> None:
        """Close the connections on which a reply is due."""
        for place, connection in self._sent:
            self._asks[place][0].pool.discard(connection)
        for _, exchange in self.begun:
            exchange.abandon()


def _more(connection: Connection) -> bytes:
    """Return what else has arrived."""
    try:
        return connection.recv(READ, MSG_DONTWAIT)
    except WOULD_BLOCK:
        return b""


def ask_together(
    asks: Sequence[tuple[SocketBackend, Command]], deadline: float
) -> tuple[list[tuple[Reply, float]], list[tuple[int, Exchange]]]:
    """Send to every node, then read from each in turn.

    Return each command's reply, or its error as a value, and the time of its arrival; and the exchanges of
    the nodes that have not answered yet, each with its place.
    """
    together = Together(asks, deadline)
    try:
        together.send()
        together.receive()
    except BaseException:
        together.abandon()
        raise
    return together.answers, together.begun
