"""One node for blocking callers: a pool of sockets, over any wire."""

from __future__ import annotations

import select
import time
from collections.abc import Generator, Sequence
from threading import get_ident

from shardcache.backends.base import BackendOptions, Exchange, Wait, excuse
from shardcache.backends.transport.dial import Expired, Target, dial
from shardcache.backends.transport.exchanges import SmallExchange, SocketExchange
from shardcache.backends.transport.pool import SLACK, Connection, Pool, Slot
from shardcache.backends.transport.sockets import FIRST_READ, LARGE_READ, RESTED
from shardcache.backends.transport.together import ask_together
from shardcache.backends.transport.transfer import (
    MAIN,
    Steps,
    ask,
    may_retry,
    read_on,
    read_refusal,
    store,
    transfer,
)
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Command, Get, Reply, Set
from shardcache.core.pools import PoolUse
from shardcache.errors import (
    NodeError,
    NodeTimeoutError,
    NodeUnavailableError,
    TooManyConnectionsError,
)


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
            request = connection.start(command)
            chunks = connection.wire.encode(command) if request is None else (request,)
        except BaseException:
            self.pool.put(connection)
            raise
        small = len(chunks) == 1 and len(chunks[0]) <= connection.whole
        if not small and not (type(command) is Set and connection.plain):
            return self._drive(self.exchange_on(connection, command, chunks, deadline), deadline)
        try:
            if small:
                reply = ask(connection, chunks[0], deadline, started=request is not None)
            else:
                reply = store(connection, chunks, deadline)
        except OSError as error:
            if request is not None:
                connection.expect()
            reply = self._recover(connection, command, error, deadline)
        except BaseException:
            self.pool.discard(connection)
            raise
        else:
            self.pool.put(connection)
        if isinstance(reply, Exception):
            raise reply
        return reply

    ask_together = staticmethod(ask_together)

    def __init_subclass__(cls) -> None:
        """Leave the straight ways out of a subclass that has its own `execute` or `begin`."""
        super().__init_subclass__()
        if "execute" in vars(cls) and "get_straight" not in vars(cls):
            cls.get_straight = None  # type: ignore[assignment]  # as a backend without one
        if "begin" in vars(cls):
            cls.ask_together = None  # type: ignore[assignment]  # likewise

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
            if get_ident() == MAIN and not connection.poll(seconds * 1000):
                raise TimeoutError  # noqa: TRY301 - a call more for each `get`
            data = connection.recv(connection.first_read)
            # The next value is often as large as this one, and one read saves half of the time for it.
            connection.first_read = FIRST_READ if len(data) < FIRST_READ else LARGE_READ
            reply = connection.end_get(data)
            if reply is UNUSUAL:
                reply = read_on(connection, data, began + seconds)
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
        if len(chunks) > 1 or len(chunks[0]) > connection.whole:
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
            reply = yield from transfer(connection, chunks)
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
        refusal = read_refusal(connection)
        if refusal is not None:
            self.pool.discard(connection)  # the server works for its other clients
            raise refusal from error
        self.close_lost(connection)
        if isinstance(error, NodeError):
            raise error
        if not may_retry(connection, command, error):
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
