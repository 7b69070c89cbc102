"""One node for blocking callers: a pool of sockets, over any wire."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Generator, Sequence
from itertools import count
from socket import MSG_DONTWAIT
from threading import get_ident, main_thread
from typing import Final

from shardcache.backends.base import BackendOptions, Exchange, Wait, excuse
from shardcache.backends.transport.dial import Expired, Target, dial
from shardcache.backends.transport.pool import SLACK, Connection, Pool, Slot
from shardcache.backends.transport.sockets import READ, RESTED, WOULD_BLOCK
from shardcache.backends.wire import UNUSUAL
from shardcache.core.capabilities import IDEMPOTENT
from shardcache.core.commands import Command, Get, Reply
from shardcache.core.pools import PoolUse
from shardcache.errors import (
    NodeError,
    NodeTimeoutError,
    NodeUnavailableError,
    ShardCacheError,
    TooManyConnectionsError,
)

# A command of at most this many bytes fits into every socket's buffers, so it can be sent before its
# reply is read. For a longer one sending and reading alternate, or both sides could wait for ever.
SMALL: Final = 16 * 1024
FIRST_READ: Final = 16 * 1024  # bytes; most replies are smaller, and a large buffer costs time
READS: Final = 16  # reads of that size before other exchanges and the clock get a turn

CLOSED: Final = "closed by the node"

_MAIN: Final = main_thread().ident

Steps = Generator[Wait, None, Reply]


class SocketBackend:
    """One node over a pool of sockets.

    A command is sent a second time only if a pooled connection turned out dead before any byte of
    the reply, and only if the command is idempotent. `retried` counts those, `dialed` counts new
    connections.
    """

    def __init__(self, target: Target, options: BackendOptions) -> None:
        self._target = target
        self.supports = target.supports
        self.whole_seconds = target.whole_seconds
        self._node = target.node.name
        self._options = options
        self.pool = Pool(self._node, options.pool_size, target.incarnation)
        self.retried = 0
        self.dialed = 0

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and return its reply; raise a `NodeError` if there is none by `deadline`."""
        connection = self.pool.get_idle()
        if connection is None:
            return self._drive(self.exchange(command, deadline), deadline)
        try:  # the text of `encode`, to save the call
            chunks = connection.wire.encode(command)
        except BaseException:
            self.pool.put(connection)
            raise
        if len(chunks) > 1 or len(chunks[0]) > SMALL:
            return self._drive(self.exchange_on(connection, command, chunks, deadline), deadline)
        try:
            reply = _ask(connection, chunks[0], deadline)
        except OSError as error:
            reply = self._recover(connection, command, error, deadline)
        except BaseException:
            self.pool.discard(connection)
            raise
        else:
            self.pool.put(connection)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def __init_subclass__(cls) -> None:
        """Leave the straight way out of a subclass that has its own `execute`."""
        super().__init_subclass__()
        if "execute" in vars(cls) and "get_straight" not in vars(cls):
            cls.get_straight = None  # type: ignore[assignment]  # as a backend without one

    def get_straight(self, key: bytes, began: float, seconds: float) -> Reply:  # noqa: C901 - see below
        """Do what `execute` does for a `Get` that began a moment ago and may take `seconds`.

        This is the usual case in one function: an idle connection that was in use lately, a key that
        needs no encoding, and a reply that arrives at once and whole. Whatever else it turns out to be
        goes on as in `execute`.
        """
        pool = self.pool
        try:
            connection = pool.idle.pop()
        except IndexError:
            return self.execute(Get(key), began + seconds)
        request = connection.start_get(key)
        if request is None or (began - connection.since >= RESTED and connection.stale):
            pool.idle.append(connection)
            return self.execute(Get(key), began + seconds)
        try:
            if not seconds <= connection.armed <= seconds + SLACK:
                connection.arm(seconds)
            sent = connection.send(request)
            if sent < len(request):
                connection.sock.sendall(request[sent:])
            if get_ident() == _MAIN and not connection.poll(seconds * 1000):
                raise TimeoutError  # noqa: TRY301 - a call more for each `get`
            data = connection.recv(FIRST_READ)
            reply = connection.end_get(data)
            if reply is UNUSUAL:
                reply = _read_on(connection, data, began + seconds)
        except OSError as error:
            connection.expect_get()
            reply = self._recover(connection, Get(key), error, began + seconds)
        except BaseException:
            pool.discard(connection)
            raise
        else:
            pool.put(connection)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _recover(
        self, connection: Connection, command: Command, error: OSError, deadline: float
    ) -> Reply:
        """Return the reply to a command whose connection failed: in part, or of another connection."""
        if isinstance(error, (BlockingIOError, TimeoutError)):
            partial = self.close_late(connection, deadline)
            if isinstance(partial, NodeError):
                raise partial from error
            return partial
        return self._drive(self.retry_on_another(connection, command, error, deadline), deadline)

    def begin(self, command: Command, deadline: float) -> Exchange:
        """Start `command` without waiting for its reply, so that many nodes are asked at once."""
        connection = self.pool.get_idle()
        if connection is None:
            return SocketExchange(self.exchange(command, deadline))
        try:  # as in `execute`
            chunks = connection.wire.encode(command)
        except BaseException:
            self.pool.put(connection)
            raise
        if len(chunks) > 1 or len(chunks[0]) > SMALL:
            return SocketExchange(self.exchange_on(connection, command, chunks, deadline))
        return SmallExchange(self, deadline, connection, command, chunks[0])

    def close_late(self, connection: Connection, deadline: float) -> Reply:
        """Close a connection whose reply is late; return what has arrived, with timeouts in the gaps.

        The timeouts are excused if the node was sending, or if this thread itself was delayed.
        """
        reply: Reply = connection.wire.partial_reply()
        self.pool.discard(connection)
        now, half = time.monotonic(), self._options.call_timeout / 2
        if now - deadline > half or now - connection.arrived < half:
            excuse(reply)
        return reply

    def close_lost(self, connection: Connection) -> None:
        """Close a connection that the node has closed: the server may have restarted.

        A connection closed here because of a late reply says nothing about the server.
        """
        self._target.incarnation.end()
        self.pool.discard(connection)

    @property
    def refused_connections(self) -> int:
        """Return how many connections the server refused while others of this client were open."""
        return self.pool.refused_connections

    @property
    def pool_use(self) -> PoolUse:
        """Return how many connections are open, and how many of them are in use."""
        return self.pool.use

    def eject(self) -> None:
        """Drop idle connections and wake every thread that waits for one."""
        self._target.incarnation.end()
        self.pool.eject()

    def close(self) -> None:
        """Drop idle connections, and each busy one when it is put back."""
        self.pool.close()

    def _drive(self, steps: Steps, deadline: float) -> Reply:
        """Run one exchange to its end."""
        exchange = SocketExchange(steps)
        try:
            while not exchange.finished:
                poll = select.poll()
                descriptor, mask, until = exchange.wait
                poll.register(descriptor, mask)
                left = (deadline if until is None else until) - time.monotonic()
                # With a busy gevent hub a late timer may fire before the descriptor is reported ready.
                if poll.poll(max(0.0, left) * 1000) or poll.poll(0):
                    exchange.advance()
                    if left > 0 or exchange.finished:
                        continue
                exchange.expire()
        except BaseException:
            exchange.abandon()
            raise
        return exchange.result()

    def encode(self, connection: Connection, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command`; put the connection back if it cannot be encoded."""
        try:
            return connection.wire.encode(command)
        except BaseException:
            self.pool.put(connection)  # which closes it unless it is at a reply boundary
            raise

    def exchange(self, command: Command, deadline: float) -> Steps:
        """Exchange over a pooled connection, or over a new one; return the reply."""
        while True:
            reserved = yield from self.pool.reserve_in_steps(deadline)
            if isinstance(reserved, Connection):
                chunks = self.encode(reserved, command)
                return (yield from self.exchange_on(reserved, command, chunks, deadline))
            try:
                connection = yield from self._dial(reserved, deadline)
                chunks = self.encode(connection, command)
                reply = yield from self.exchange_on(connection, command, chunks, deadline)
            except TooManyConnectionsError:
                if not self.pool.record_refused():
                    raise
            else:
                self.pool.record_connected()
                return reply

    def exchange_on(
        self, connection: Connection, command: Command, chunks: Sequence[bytes], deadline: float
    ) -> Steps:
        """Send encoded chunks and return the reply; retry on another connection if this one is dead."""
        try:
            reply = yield from _transfer(connection, chunks)
        except Expired:
            return self.close_late(connection, deadline)
        except OSError as error:
            exchange = self.retry_on_another(connection, command, error, deadline)
        except BaseException:
            self.pool.discard(connection)
            raise
        else:
            self.pool.put(connection)
            return reply
        return (yield from exchange)

    def retry_on_another(
        self, connection: Connection, command: Command, error: OSError, deadline: float
    ) -> Steps:
        """Return the steps of a retry over another connection; raise if a retry could do harm."""
        refusal = _read_refusal(connection)
        if refusal is not None:
            self.pool.discard(connection)  # the server works for its other clients
            raise refusal from error
        self.close_lost(connection)
        if isinstance(error, NodeError):
            raise error
        if not _may_retry(connection, command, error):
            raise self.translate(error) from error
        self.retried += 1
        self.pool.drop_idle()  # if one connection is dead, the idle ones most likely are as well
        return self.exchange(command, deadline)

    def translate(self, error: OSError) -> NodeError:
        """Return the `NodeError` for an `OSError`."""
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return NodeTimeoutError("did not answer in time", self._node)
        return NodeUnavailableError(f"lost the connection: {error.strerror or error}", self._node)

    def _dial(self, slot: Slot, deadline: float) -> Generator[Wait, None, Connection]:
        """Dial a connection for a reserved slot."""
        until = min(deadline, time.monotonic() + self._options.connect_timeout)
        try:
            connection = Connection(*(yield from dial(self._target, until)))
        except BaseException:
            self.pool.release(slot)
            raise
        self.pool.add(connection, slot)
        self.dialed += 1
        return connection


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

    __slots__ = ("_backend", "_command", "_connection", "_deadline")

    def __init__(
        self,
        backend: SocketBackend,
        deadline: float,
        connection: Connection,
        command: Command,
        chunk: bytes,
    ) -> None:
        self._backend = backend
        self._deadline = deadline
        self._connection: Connection | None = connection
        self._command = command
        self.wait = connection.reading
        self._steps = _NO_STEPS
        self._reply = None
        self.finished = False
        try:
            if connection.plain:  # as `try_send` has it, to save the call
                sent = connection.send(chunk, MSG_DONTWAIT)
            else:
                sent = connection.try_send(chunk)
        except WOULD_BLOCK:
            sent = 0
        except OSError as error:
            self._retry(connection, error)
            return
        except BaseException:
            backend.pool.discard(connection)
            raise
        if sent < len(chunk):
            self._continue(backend.exchange_on(connection, command, [chunk[sent:]], deadline))

    def advance(self) -> None:
        """Receive what has arrived."""
        connection = self._connection
        if connection is None:
            super().advance()
            return
        try:
            replies = _pull(connection)
        except OSError as error:
            self._retry(connection, error)
        except BaseException as error:
            self._backend.pool.discard(connection)
            if not isinstance(error, Exception):
                raise
            self._finish(error)
        else:
            if replies:
                # Cleared before it is put back: after an interrupt `abandon` must not close a
                # connection that another thread may already use.
                self._connection = None
                self._reply = replies[0]
                self.finished = True
                self._backend.pool.put(connection)

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


def _ask(connection: Connection, chunk: bytes, deadline: float) -> Reply:
    """Send one small command and wait for its reply: the hot path of a `get`."""
    seconds = deadline - time.monotonic()
    if not seconds <= connection.armed <= seconds + SLACK or seconds <= 0:
        connection.arm(seconds)
    sent = connection.send(chunk)
    if sent < len(chunk):
        connection.sock.sendall(memoryview(chunk)[sent:])
    return _read(connection, seconds, deadline)


def _read(connection: Connection, seconds: float, deadline: float) -> Reply:
    """Wait for the reply to a command that was sent, in the `seconds` that are left."""
    polls = connection.plain and get_ident() == _MAIN  # only the main thread handles signals
    size = FIRST_READ
    while True:
        if polls and not connection.poll(seconds * 1000):
            raise TimeoutError
        try:
            data = connection.recv(size)
        except TimeoutError:
            data = connection.recv_after_timeout(size)
        replies = _feed(connection, data)
        if replies:
            return replies[0]
        connection.arrived = now = time.monotonic()
        seconds, size = deadline - now, READ
        connection.arm(seconds)


def _feed(connection: Connection, data: bytes) -> list[Reply]:
    """Return the replies that are complete with these bytes; raise if there are none."""
    if not data:
        raise ConnectionResetError(CLOSED)
    connection.answered = True
    return connection.wire.feed(data)


def _read_on(connection: Connection, data: bytes, deadline: float) -> Reply:
    """Wait for the rest of a reply that is not of the usual kind; `data` is its beginning."""
    connection.expect_get()
    replies = _feed(connection, data)
    if replies:
        return replies[0]
    connection.arrived = now = time.monotonic()
    connection.arm(deadline - now)
    return _read(connection, deadline - now, deadline)


def _transfer(connection: Connection, chunks: Sequence[bytes]) -> Steps:
    """Send chunks while receiving the reply, so that neither side waits for the other."""
    unsent: deque[memoryview] = deque(memoryview(chunk) for chunk in chunks)
    descriptor = connection.sock.fileno()
    _push(connection, unsent)
    while True:
        yield Wait(descriptor, select.POLLIN | select.POLLOUT if unsent else select.POLLIN)
        replies = _pull(connection)
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


def _pull(connection: Connection) -> list[Reply]:
    """Receive until a reply is complete, no bytes are left, or the clock must be checked."""
    size, plain = FIRST_READ, connection.plain
    for turn in count():
        try:  # the text of `try_recv` and `_feed`, to save the calls
            data = connection.recv(size, MSG_DONTWAIT) if plain else connection.try_recv(size)
        except WOULD_BLOCK:
            return []
        if not data:
            raise ConnectionResetError(CLOSED)
        connection.answered = True
        replies = connection.wire.feed(data)
        if replies:
            return replies
        # TLS may buffer bytes that no poll reports.
        if plain and (len(data) < size or turn == READS):
            break
        size = READ
    connection.arrived = time.monotonic()
    return []


def _read_refusal(connection: Connection) -> TooManyConnectionsError | None:
    """Return what a server said before it closed a connection for lack of room."""
    try:
        _pull(connection)
    except TooManyConnectionsError as error:
        return error
    except (OSError, ShardCacheError):
        return None
    return None


def _may_retry(connection: Connection, command: Command, error: OSError) -> bool:
    """Return whether a retry is harmless: no byte was answered, and the command is idempotent."""
    dead = isinstance(error, ConnectionError)
    return dead and not connection.answered and type(command) in IDEMPOTENT
