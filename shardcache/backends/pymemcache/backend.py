"""A node behind pymemcache, asked by threads that block and by the tasks of event loops."""

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

from shardcache.backends.base import LAST_WAIT, BackendOptions, cut_off
from shardcache.backends.pymemcache.refusals import translated
from shardcache.backends.pymemcache.session import Session
from shardcache.backends.threads import NoThreadError, Workers
from shardcache.backends.transport.dial import Expired, Target, Wait, dial
from shardcache.backends.transport.dropped import warn_dropped
from shardcache.backends.transport.pool import Connection, Pool, Slot
from shardcache.backends.transport.wakeups import Wakeup
from shardcache.backends.wire import Wire
from shardcache.core.commands import Cas, Command, DeleteMany, Get, GetMany, Reply, Set, SetMany
from shardcache.core.placement.nodes import Node
from shardcache.errors import (
    NodeError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnavailableError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

# pymemcache sends a command whole before it reads: what comes back meanwhile must fit into the
# buffers between.
KEYS_AT_ONCE: Final = 200

Many = GetMany | SetMany | DeleteMany


class PymemcacheBackend:
    """One node over a pool of connections, each in the hands of a pymemcache client.

    Several nodes are asked at once from threads, because pymemcache can only block.
    """

    whole_seconds = True

    def __init__(self, node: Node, options: BackendOptions, max_value_bytes: int) -> None:
        self._node = node.name
        self._options = options
        self._max_value_bytes = max_value_bytes
        # Of a wire, dialing and pool want what a session has: no greeting, and whether it is idle.
        make_session: Any = partial(Session, node.name, max_value_bytes)
        self._target = Target(node, make_wire=make_session)
        self.pool = Pool(node.name, options.pool_size)
        self._workers = Workers(f"pymemcache {node.name}", options.pool_size)

    def execute(self, command: Command, deadline: float) -> Reply:
        """Send `command` and give its reply; raise a `NodeError` when there is none by `deadline`."""
        return self._ask(command, deadline, [])

    def begin(self, command: Command, deadline: float) -> ThreadExchange:
        """Start `command` in a thread, so that many nodes are asked at once."""
        try:
            exchange = ThreadExchange(Task(command, deadline, self._node))
        except OSError as error:
            raise _unasked(error, self._node) from error
        try:
            self.start(exchange.task, exchange)
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    def start(self, task: Task, outcome: Outcome) -> None:
        """Have a thread do the task for `outcome`; one that nobody wants any more is not done."""

        def work() -> None:
            reply: Reply | Exception = None
            try:
                if outcome.wanted:
                    reply = self._ask(task.command, task.deadline, task.so_far)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                reply = error
            outcome.arrive(reply)

        try:
            self._workers.submit(work)
        except NoThreadError as error:
            outcome.arrive(_unasked(error, self._node))

    @property
    def limited(self) -> int:
        """Return how many connections the server refused while others of this client were open."""
        return self.pool.limited

    def eject(self) -> None:
        """Drop idle connections and let nobody wait for one."""
        self.pool.eject()

    def close(self) -> None:
        """Drop idle connections, and each busy one as it comes back; let the threads end."""
        self.pool.close()
        self._workers.close()

    def _ask(self, command: Command, deadline: float, so_far: list[Any]) -> Reply:
        if not isinstance(command, (GetMany, SetMany, DeleteMany)):
            return self._one(command, deadline)
        for part in _parts(command):
            try:
                so_far += self._part(part, deadline)
            except NodeError as error:  # for the keys of this part, and of those not asked for
                return _filled(so_far, command, error)
        return so_far

    def _part(self, part: Many, deadline: float) -> list[Any]:  # as above
        try:
            return cast("list[Any]", self._one(part, deadline))
        except NodeRefusedError:
            if isinstance(part, DeleteMany):
                raise
        # pymemcache does not say whose refusal it was, so each item is asked for by itself.
        if isinstance(part, GetMany):
            return [self._alone(Get(key), deadline) for key in part.keys]
        return [self._alone(Set(*item, part.ttl), deadline) for item in part.items]

    def _alone(self, command: Set | Get, deadline: float) -> Reply:
        try:
            return self._one(command, deadline)
        except NodeRefusedError as error:
            return error

    def _one(self, command: Command, deadline: float) -> Reply:
        self._check_size(command)
        while True:
            try:
                return self._asked(self._lent(deadline), command, deadline)
            except TooManyConnectionsError:
                if not self.pool.refused():
                    raise

    def _asked(self, connection: Connection, command: Command, deadline: float) -> Reply:
        session = cast("Session", connection.wire)
        try:
            reply = session.ask(connection, command, deadline)
        except Exception as error:
            ours = translated(error, command, self._node)
            if ours is error:
                raise
            raise ours from error
        finally:
            self.pool.put(connection)  # which closes it unless it is idle
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _check_size(self, command: Command) -> None:
        for size in _value_sizes(command):
            if size > self._max_value_bytes:
                raise ValueTooLargeError(
                    f"a value of {size} bytes (at most {self._max_value_bytes})", self._node
                )

    def _lent(self, deadline: float) -> Connection:
        while True:
            held = self.pool.reserve(deadline)
            if isinstance(held, Slot):
                return self._dialed(held, deadline)
            # pymemcache forgets what it received too much, and would take the rest for an answer.
            if not held.stale:
                return held
            self.pool.discard(held)

    def _dialed(self, slot: Slot, deadline: float) -> Connection:
        """Give a new connection, in the place reserved for it."""
        until = min(deadline, time.monotonic() + self._options.connect_timeout)
        try:
            connection = Connection(*self._connected(until))
        except BaseException:
            self.pool.release(slot)
            raise
        self.pool.add(connection, slot)
        return connection

    def _connected(self, until: float) -> tuple[socket.socket, Wire]:
        steps = dial(self._target, until)
        try:
            wait = next(steps)
            while True:
                wait = next(steps) if _ready(wait) else steps.throw(Expired())
        except StopIteration as done:
            connected: tuple[socket.socket, Wire] = done.value
            return connected
        finally:
            steps.close()


class AsyncPymemcacheBackend:
    """The same for event loops: calls run in threads, as many at once as there are connections.

    A cancelled or late call leaves its thread to end by the call's deadline, and its connection is
    closed unless it came to a clean end.
    """

    whole_seconds = True

    def __init__(self, node: Node, options: BackendOptions, max_value_bytes: int) -> None:
        self._node = node.name
        self._blocking = PymemcacheBackend(node, options, max_value_bytes)
        self._pending: set[asyncio.Future[Reply]] = set()
        self._unclosed: asyncio.AbstractEventLoop | None = None

    def __del__(self) -> None:
        loop = getattr(self, "_unclosed", None)  # an interrupt may have come before it was set
        if not (loop is None or loop.is_closed()):
            warn_dropped()

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Have a thread send `command`; the future gives the reply or raises `NodeError`."""
        self._unclosed = loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        task = Task(command, deadline, self._node)
        self._blocking.start(task, Promise(future))
        delay = max(0.0, deadline - time.monotonic())
        timer = loop.call_later(delay, lambda: _settle(future, task.late()))
        self._pending.add(future)
        future.add_done_callback(lambda _: timer.cancel())
        future.add_done_callback(self._pending.discard)
        return future

    @property
    def limited(self) -> int:
        """Return how many connections the server refused while others of this client were open."""
        return self._blocking.limited

    def eject(self) -> None:
        """Drop idle connections and let nobody wait for one."""
        self._blocking.eject()

    async def aclose(self) -> None:
        """Close the connections once this loop's calls in flight are answered, late or cut off."""
        loop = asyncio.get_running_loop()
        own = [future for future in self._pending if future.get_loop() is loop]
        if own:
            _, silent = await asyncio.wait(own, timeout=LAST_WAIT)
            for future in silent:
                _settle(future, cut_off(self._node))
        self._blocking.close()
        self._unclosed = None


@dataclass(slots=True)
class Task:
    """A command for a thread. `so_far` holds the replies for the first of many keys, as they come."""

    command: Command
    deadline: float
    node: str
    so_far: list[Any] = field(default_factory=list)  # payloads, bools and errors

    def late(self) -> Reply:
        """Give what has come by now, with a `NodeTimeoutError` for what has not."""
        error = NodeTimeoutError("did not answer in time", self.node)
        if isinstance(self.command, (GetMany, SetMany, DeleteMany)):
            return _filled(list(self.so_far), self.command, error)
        return error


class Outcome(Protocol):
    """Where a thread's reply goes."""

    @property
    def wanted(self) -> bool:
        """Say whether anybody still waits for it."""

    def arrive(self, reply: Reply | Exception) -> None:
        """Take the reply, from the thread; what arrives later is dropped."""


class ThreadExchange:
    """A command in a thread's hands, with a wakeup that tells of its reply."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.finished = False
        self._arrived: dict[str, Reply | Exception] = {}
        self._reply: Reply | Exception = None
        self._wakeup = Wakeup()

    @property
    def deadline(self) -> float:
        """Give the task's deadline."""
        return self.task.deadline

    @property
    def wanted(self) -> bool:
        """Say whether the reply is still waited for."""
        return not self.finished

    def arrive(self, reply: Reply | Exception) -> None:
        """Take the reply, unless there is one, and wake who polls."""
        self._arrived.setdefault("reply", reply)  # atomic: the first is kept
        self._wakeup.set()

    def fileno(self) -> int:
        """Give the descriptor to poll."""
        return self._wakeup.fileno()

    def events(self) -> int:
        """Give the event that says that the reply is there."""
        return select.POLLIN

    def advance(self) -> None:
        """Take the reply, if it is there."""
        if self._arrived and not self.finished:
            self._finish(self._arrived["reply"])

    def expire(self) -> None:
        """End the waiting: what has come by now is the reply."""
        self.advance()
        if not self.finished:
            self._finish(self.task.late())

    def abandon(self) -> None:
        """Stop waiting; the thread ends by itself, at the latest at the deadline."""
        if not self.finished:
            self._finish(None)

    def result(self) -> Reply:
        """Give the reply; raise the error that ended the exchange."""
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    def _finish(self, reply: Reply | Exception) -> None:
        self._reply = reply
        self.finished = True


class Promise:
    """A future of an event loop, as the outcome of a thread's work."""

    def __init__(self, future: asyncio.Future[Reply]) -> None:
        self._future = future

    @property
    def wanted(self) -> bool:
        """Say whether the future is still open."""
        return not self._future.done()

    def arrive(self, reply: Reply | Exception) -> None:
        """Give the reply to the future, in its loop's own thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._future.get_loop().call_soon_threadsafe(_settle, self._future, reply)


def _settle(future: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


def _unasked(error: OSError, node: str) -> NodeError:
    """Return our error for what the system refused to this process, which blames no node."""
    ours = NodeUnavailableError(f"cannot be asked: {error.strerror}", node)
    ours.__cause__ = error
    return ours


def _ready(wait: Wait) -> bool:
    """Wait for a descriptor; say whether it was ready in time."""
    poll = select.poll()
    poll.register(wait.descriptor, wait.mask)
    timeout = None if wait.until is None else max(0.0, wait.until - time.monotonic()) * 1000
    return bool(poll.poll(timeout))


def _size(command: Many) -> int:
    return len(command.items if isinstance(command, SetMany) else command.keys)


def _filled(replies: list[Any], command: Many, error: NodeError) -> list[Any]:
    """Give the replies with `error` for each key that has none."""
    return replies + [error] * (_size(command) - len(replies))


def _parts(command: Many) -> Iterator[Many]:
    """Cut a command over many keys into some of few."""
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
