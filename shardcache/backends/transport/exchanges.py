"""One command in flight to one node, driven without blocking, so that many nodes are asked at once."""

from __future__ import annotations

from socket import MSG_DONTWAIT
from typing import TYPE_CHECKING, Final

from shardcache.backends.base import Wait
from shardcache.backends.transport.dial import Expired
from shardcache.backends.transport.pool import Connection
from shardcache.backends.transport.sockets import WOULD_BLOCK
from shardcache.backends.transport.transfer import Steps, pull
from shardcache.core.commands import Command, Reply
from shardcache.errors import NodeError

if TYPE_CHECKING:  # it begins them
    from shardcache.backends.transport.blocking import SocketBackend


class SocketExchange:
    """One command in flight, driven step by step."""

    __slots__ = ("_reply", "_steps", "finished", "wait")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.wait = _NOTHING
        self._reply: Reply | Exception = None
        self.finished = False
        self._step(None)

    def advance(self) -> None:
        """Send and receive what can be done without waiting."""
        self._step(None)

    def expire(self) -> None:
        """Stop waiting: the reply is what has arrived, with timeouts in the gaps."""
        self._step(Expired())

    def abandon(self) -> None:
        """Stop now, and close the connection."""
        self._steps.close()
        self.finished = True

    def result(self) -> Reply:
        """Return the reply; raise the error that ended the exchange."""
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    def _step(self, stop: Expired | None) -> None:
        try:
            self.wait = next(self._steps) if stop is None else self._steps.throw(stop)
        except StopIteration as done:
            self._finish(done.value)
        except Exception as error:  # noqa: BLE001 - `result` raises it in the caller
            self._finish(error)

    def _finish(self, reply: Reply | Exception) -> None:
        self._reply = reply
        self.finished = True


class SmallExchange(SocketExchange):
    """A command that is sent whole at once over a pooled connection, so that only reading is left.

    Most exchanges of a fan-out are of this kind; without a generator they take half the time. If
    the connection turns out dead, it continues step by step over another.
    """

    eager = True

    __slots__ = ("_backend", "_command", "_connection", "_deadline")

    def __init__(
        self,
        backend: SocketBackend,
        deadline: float,
        connection: Connection,
        command: Command,
        chunk: bytes | None = None,
    ) -> None:
        """Send the `chunk` that the command is, unless it was sent already."""
        self._backend = backend
        self._deadline = deadline
        self._connection: Connection | None = connection
        self._command = command
        self.wait = connection.reading
        self._steps = _NO_STEPS
        self._reply = None
        self.finished = False
        if chunk is None:
            return
        try:
            if connection.plain:  # as `try_send` has it, to save the call
                sent = connection.send(chunk, MSG_DONTWAIT)
            else:
                sent = connection.try_send(chunk)
        except WOULD_BLOCK:
            sent = 0
        except BaseException as error:  # noqa: BLE001 - `fail` raises an interrupt
            self.fail(connection, error)
            return
        if sent < len(chunk):
            self._continue(backend.exchange_on(connection, command, [chunk[sent:]], deadline))

    def advance(self) -> None:
        """Receive what has arrived."""
        connection = self._connection
        if connection is None:
            super().advance()
            return
        try:
            replies = pull(connection)
        except BaseException as error:  # noqa: BLE001 - as above
            self.fail(connection, error)
        else:
            if replies:
                # Cleared before it is put back: after an interrupt `abandon` must not close a
                # connection that another thread may already use.
                self._connection = None
                self._reply = replies[0]
                self.finished = True
                self._backend.pool.put(connection)

    def fail(self, connection: Connection, error: BaseException) -> None:
        """Go on after an error, perhaps over another connection; raise what is no `Exception`."""
        if isinstance(error, OSError):
            self._retry(connection, error)
            return
        self._backend.pool.discard(connection)
        if not isinstance(error, Exception):
            raise error
        self._finish(error)

    def expire(self) -> None:
        """Stop waiting: the reply is what has arrived, with timeouts in the gaps."""
        connection = self._connection
        if connection is None:
            super().expire()
            return
        self._connection = None
        self._finish(self._backend.close_late(connection, self._deadline))

    def abandon(self) -> None:
        """Stop now, and close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._backend.pool.discard(connection)
        elif not self.finished:
            super().abandon()
        self.finished = True

    def _retry(self, connection: Connection, error: OSError) -> None:
        try:
            exchange = self._backend.retry_on_another(
                connection, self._command, error, self._deadline
            )
        except NodeError as failure:
            self._finish(failure)
        else:
            self._continue(exchange)

    def _continue(self, exchange: Steps) -> None:
        """Continue step by step."""
        self._connection = None
        self._steps = exchange
        super().advance()


def _no_steps() -> Steps:
    return None
    yield


_NO_STEPS: Final = _no_steps()  # the steps of an exchange that needs none
_NOTHING: Final = Wait(-1, 0)  # what an exchange waits for before its first step
