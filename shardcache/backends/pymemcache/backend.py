"""One node through pymemcache, for blocking callers and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, cast

from shardcache.backends.base import LAST_WAIT, BackendOptions, Wait, cut_off_error
from shardcache.backends.pymemcache.refusals import translate
from shardcache.backends.pymemcache.session import SUPPORTS, Session
from shardcache.backends.threads import NoThreadError, Workers
from shardcache.backends.transport.dial import Expired, Target, dial
from shardcache.backends.transport.dropped import warn_dropped
from shardcache.backends.transport.pool import Connection, Pool, Slot
from shardcache.backends.transport.resolver import NAMES, Resolver
from shardcache.backends.transport.wakeups import Wakeup
from shardcache.backends.wire import Wire
from shardcache.core.commands import Cas, Command, DeleteMany, Get, GetMany, Reply, Set, SetMany
from shardcache.core.placement.nodes import Node
from shardcache.core.pools import PoolUse
from shardcache.errors import (
    NodeError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

# pymemcache sends a whole command before it reads, so the replies must fit into the socket buffers.
KEYS_AT_ONCE: Final = 200

Many = GetMany | SetMany | DeleteMany


class PymemcacheBackend:
    """One node over a pool of connections, each driven by a pymemcache client.

    A fan-out asks its nodes in threads, because pymemcache can only block.
    """

    supports = SUPPORTS
    whole_seconds = True

    def __init__(
        self,
        node: Node,
        options: BackendOptions,
        max_value_bytes: int,
        resolver: Resolver = NAMES,
    ) -> None:
        self._node = node.name
        self._options = options
        self._max_value_bytes = max_value_bytes
        # A session is enough of a wire for dialing and the pool: it has a hello, and knows if it is idle.
        make_session: Any = partial(Session, node.name, max_value_bytes)
        self._target = Target(node, resolver=resolver, make_wire=make_session)
        self.pool = Pool(node.name, options.pool_size)
        self._workers = Workers(f"pymemcache {node.name}", options.pool_size)

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and return its reply; raise a `NodeError` if there is none by `deadline`."""
        return self._ask(command, deadline, [])

    def begin(self, command: Command, deadline: float) -> ThreadExchange:
        """Start `command` in a thread, so that many nodes are asked at once."""
        try:
            exchange = ThreadExchange(Job(command, deadline, self._node))
        except OSError as error:
            raise _local_failure(error, self._node) from error
        try:
            self.start(exchange.job, exchange)
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    def start(self, job: Job, sink: ReplySink) -> None:
        """Run the job in a thread, and deliver its reply to `sink` unless it is no longer wanted."""

        def work() -> None:
            reply: Reply | Exception = None
            try:
                if sink.wanted:
                    reply = self._ask(job.command, job.deadline, job.so_far)
            except Exception as error:  # noqa: BLE001 - the waiting caller raises it
                reply = error
            sink.deliver(reply)

        try:
            self._workers.submit(work)
        except NoThreadError as error:
            sink.deliver(_local_failure(error, self._node))

    @property
    def pool_use(self) -> PoolUse:
        """Return how many connections are open, and how many of them are in use."""
        return self.pool.use

    @property
    def refused_connections(self) -> int:
        """Return how many connections the server refused while others of this client were open."""
        return self.pool.refused_connections

    def eject(self) -> None:
        """Drop idle connections and wake every thread that waits for one."""
        self.pool.eject()

    def close(self) -> None:
        """Drop idle connections, and each busy one when it is put back; end the threads."""
        self.pool.close()
        self._workers.close()

    def _ask(self, command: Command, deadline: float, so_far: list[Any]) -> Reply:
        if not isinstance(command, (GetMany, SetMany, DeleteMany)):
            return self._ask_one(command, deadline)
        for part in _parts(command):
            try:
                so_far += self._ask_part(part, deadline)
            except NodeError as error:  # for the keys of this part and of the parts not sent
                return _fill(so_far, command, error)
        return so_far

    def _ask_part(self, part: Many, deadline: float) -> list[Any]:  # as above
        try:
            return cast("list[Any]", self._ask_one(part, deadline))
        except NodeRefusedError:
            if isinstance(part, DeleteMany):
                raise
        # pymemcache does not tell which key was refused, so each item is sent alone.
        if isinstance(part, GetMany):
            return [self._ask_alone(Get(key), deadline) for key in part.keys]
        return [self._ask_alone(Set(*item, part.ttl), deadline) for item in part.items]

    def _ask_alone(self, command: Set | Get, deadline: float) -> Reply:
        try:
            return self._ask_one(command, deadline)
        except NodeRefusedError as error:
            return error

    def _ask_one(self, command: Command, deadline: float) -> Reply:
        self._check_size(command)
        while True:
            try:
                return self._ask_over(self._borrow(deadline), command, deadline)
            except TooManyConnectionsError:
                if not self.pool.record_refused():
                    raise

    def _ask_over(self, connection: Connection, command: Command, deadline: float) -> Reply:
        session = cast("Session", connection.wire)
        try:
            reply = session.ask(connection, command, deadline)
        except Exception as error:
            ours = translate(error, command, self._node)
            if ours is error:
                raise
            raise ours from error
        finally:
            self.pool.put(connection)  # it is closed unless it is idle
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _check_size(self, command: Command) -> None:
        for size in _value_sizes(command):
            if size > self._max_value_bytes:
                raise ValueTooLargeError(
                    f"a value of {size} bytes (at most {self._max_value_bytes})", self._node
                )

    def _borrow(self, deadline: float) -> Connection:
        while True:
            reserved = self.pool.reserve(deadline)
            if isinstance(reserved, Slot):
                return self._dial(reserved, deadline)
            # pymemcache drops surplus bytes that it has received, and would read the rest as an answer.
            if not reserved.stale:
                return reserved
            self.pool.discard(reserved)

    def _dial(self, slot: Slot, deadline: float) -> Connection:
        """Dial a connection for a reserved slot."""
        until = min(deadline, time.monotonic() + self._options.connect_timeout)
        try:
            connection = Connection(*self._connect(until))
        except BaseException:
            self.pool.release(slot)
            raise
        self.pool.add(connection, slot)
        return connection

    def _connect(self, until: float) -> tuple[socket.socket, Wire]:
        steps = dial(self._target, until)
        try:
            wait = next(steps)
            while True:
                wait = next(steps) if _wait_ready(wait) else steps.throw(Expired())
        except StopIteration as done:
            connected: tuple[socket.socket, Wire] = done.value
            return connected
        finally:
            steps.close()


class AsyncPymemcacheBackend:
    """One node for asyncio: calls run in threads, at most one per connection.

    The thread of a cancelled or late call ends by the call's deadline. Its connection is closed
    unless the call has ended cleanly.
    """

    supports = SUPPORTS
    whole_seconds = True

    def __init__(
        self,
        node: Node,
        options: BackendOptions,
        max_value_bytes: int,
        resolver: Resolver = NAMES,
    ) -> None:
        self._node = node.name
        self._blocking = PymemcacheBackend(node, options, max_value_bytes, resolver)
        self._pending: set[asyncio.Future[Reply]] = set()
        self._unclosed: asyncio.AbstractEventLoop | None = None

    def __del__(self) -> None:
        loop = getattr(self, "_unclosed", None)  # an interrupt may have come before it was set
        if not (loop is None or loop.is_closed()):
            warn_dropped()

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Send `command` in a thread; return a future of the reply."""
        self._unclosed = loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        job = Job(command, deadline, self._node)
        sink = FutureSink(future)
        self._blocking.start(job, sink)
        delay = max(0.0, deadline - time.monotonic())
        timer = loop.call_later(delay, lambda: sink.expire(job))
        self._pending.add(future)
        future.add_done_callback(lambda _: timer.cancel())
        future.add_done_callback(self._pending.discard)
        return future

    @property
    def pool_use(self) -> PoolUse:
        """Return how many connections are open, and how many of them are in use."""
        return self._blocking.pool_use

    @property
    def refused_connections(self) -> int:
        """Return how many connections the server refused while others of this client were open."""
        return self._blocking.refused_connections

    def eject(self) -> None:
        """Drop idle connections and wake every thread that waits for one."""
        self._blocking.eject()

    async def aclose(self) -> None:
        """Close the connections once this loop's calls in flight are answered, late or cut off."""
        loop = asyncio.get_running_loop()
        own = [future for future in self._pending if future.get_loop() is loop]
        if own:
            _, silent = await asyncio.wait(own, timeout=LAST_WAIT)
            for future in silent:
                _settle(future, cut_off_error(self._node))
        self._blocking.close()
        self._unclosed = None


@dataclass(slots=True)
class Job:
    """A command for a thread. `so_far` collects the replies to a command over many keys."""

    command: Command
    deadline: float
    node: str
    so_far: list[Any] = field(default_factory=list)  # payloads, bools and errors

    def late_reply(self) -> Reply:
        """Return what has arrived by now, with a `NodeTimeoutError` in each gap."""
        error = NodeTimeoutError("did not answer in time", self.node)
        if isinstance(self.command, (GetMany, SetMany, DeleteMany)):
            return _fill(list(self.so_far), self.command, error)
        return error


class ReplySink(Protocol):
    """The receiver of a thread's reply."""

    @property
    def wanted(self) -> bool:
        """Return whether the reply is still waited for."""

    def deliver(self, reply: Reply | Exception) -> None:
        """Accept the reply from the thread; a later one is dropped."""


class ThreadExchange:
    """A command that runs in a thread, with a wakeup for its reply."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.finished = False
        self._delivered: dict[str, Reply | Exception] = {}
        self._reply: Reply | Exception = None
        self._wakeup = Wakeup()
        self.wait = Wait(self._wakeup.fileno(), select.POLLIN)

    @property
    def wanted(self) -> bool:
        """Return whether the reply is still waited for."""
        return not self.finished

    def deliver(self, reply: Reply | Exception) -> None:
        """Accept the reply unless there is one, and wake the thread that polls."""
        self._delivered.setdefault("reply", reply)  # atomic, and keeps the first
        self._wakeup.set()

    def advance(self) -> None:
        """Finish if the reply is there."""
        if self._delivered and not self.finished:
            self._finish(self._delivered["reply"])

    def expire(self) -> None:
        """Stop waiting: the reply is what has arrived, with timeouts in the gaps."""
        self.advance()
        if not self.finished:
            self._finish(self.job.late_reply())

    def abandon(self) -> None:
        """Stop waiting; the thread ends by the deadline."""
        if not self.finished:
            self._finish(None)

    def result(self) -> Reply:
        """Return the reply; raise the error that ended the exchange."""
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    def _finish(self, reply: Reply | Exception) -> None:
        self._reply = reply
        self.finished = True


class FutureSink:
    """A future of an event loop that takes a thread's reply."""

    def __init__(self, future: asyncio.Future[Reply]) -> None:
        self._future = future
        self._delivered: list[Reply | Exception] = []

    @property
    def wanted(self) -> bool:
        """Return whether the future is still open."""
        return not self._future.done()

    def deliver(self, reply: Reply | Exception) -> None:
        """Settle the future in the thread of its loop."""
        self._delivered.append(reply)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._future.get_loop().call_soon_threadsafe(_settle, self._future, reply)

    def expire(self, job: Job) -> None:
        """Settle the future with what the job has by now; an interrupt may have lost its reply."""
        _settle(self._future, self._delivered[0] if self._delivered else job.late_reply())


def _settle(future: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


def _local_failure(error: OSError, node: str) -> NodeError:
    """Return the error for what the system refused to this process; it blames no node."""
    ours = NodeUnavailableError(f"cannot be asked: {error.strerror}", node)
    ours.__cause__ = error
    return ours


def _wait_ready(wait: Wait) -> bool:
    """Wait for a descriptor; return whether it was ready in time."""
    poll = select.poll()
    poll.register(wait.descriptor, wait.mask)
    timeout = None if wait.until is None else max(0.0, wait.until - time.monotonic()) * 1000
    return bool(poll.poll(timeout))


def _size(command: Many) -> int:
    return len(command.items if isinstance(command, SetMany) else command.keys)


def _fill(replies: list[Any], command: Many, error: NodeError) -> list[Any]:
    """Return the replies, with `error` for each key that has none."""
    return replies + [error] * (_size(command) - len(replies))


def _parts(command: Many) -> Iterator[Many]:
    """Split a command over many keys into commands over few."""
    for start in range(0, _size(command), KEYS_AT_ONCE):
        span = slice(start, start + KEYS_AT_ONCE)
        if isinstance(command, SetMany):
            yield SetMany(command.items[span], command.ttl)
        else:
            yield type(command)(command.keys[span])


def _value_sizes(command: Command) -> Iterator[int]:
    if isinstance(command, (Set, Cas)):
        yield len(command.payload[1])
    elif isinstance(command, SetMany):
        for _, payload in command.items:
            yield len(payload[1])
