"""The connections of one node that blocking threads take and put back."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Final, cast

from shardcache.backends.base import Wait
from shardcache.backends.live_objects import LiveObjects
from shardcache.backends.transport.dial import Expired
from shardcache.backends.transport.limits import DialLimit
from shardcache.backends.transport.sockets import FIRST_READ, ONE_RECORD, RESTED, SMALL
from shardcache.backends.transport.wakeups import ThreadWakeup, Wakeup
from shardcache.backends.wire import Incarnation, RoomyWire, StraightWire, StraightWrites, Wire
from shardcache.core.commands import Command
from shardcache.core.pools import PoolUse
from shardcache.errors import NodeUnavailableError, PoolTimeoutError
from shardcache.log import log

SLACK: Final = 0.005  # seconds by which a socket's own timeout may pass a deadline
CHUNKS: Final = 64  # that are sent at once; systems take at least 1,024
_WAIT_SLICE: Final = 0.05  # seconds
GARBAGE_SHARE: Final = 0.05  # the largest share of time spent on collecting garbage
_YOUNG: Final = 1  # the generation that is collected in milliseconds
_ALL: Final = 2  # the generation that takes a second in a large program
MISSED: Final = 1.0  # seconds in use after which a connection may have been dropped
_STUCK: Final = 10.0  # seconds after which a collection that never ended no longer blocks others

Waiter = ThreadWakeup | Wakeup


class Connection:
    """A socket with its wire, at a reply boundary or in the middle of one exchange.

    Plain sockets use the kernel's timeout (`SO_RCVTIMEO`), which is set again only for a shorter
    deadline: Python's own timeout costs a poll before every read. TLS sockets, and those that
    gevent has replaced, use Python's.
    """

    __slots__ = (
        "__weakref__",
        "answered",
        "armed",
        "arrived",
        "end",
        "end_get",
        "expect",
        "expect_get",
        "first_read",
        "plain",
        "poll",
        "reading",
        "recv",
        "room",
        "secure",
        "send",
        "since",
        "sock",
        "start",
        "start_get",
        "take",
        "whole",
        "wire",
    )

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self.sock = sock
        self.wire = wire
        # The main thread polls before `recv`: Python repeats a `recv` that a signal interrupts, and
        # the kernel's timeout would restart each time. For `poll` Python counts the time itself.
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.poll = poll.poll
        self.send = sock.send
        self.recv = sock.recv
        self.reading = Wait(sock.fileno(), select.POLLIN)
        # Whether the node has answered since the connection was taken: a new one just has.
        self.answered = True
        self.arrived = 0.0  # when a part of a reply last arrived
        self.since = time.monotonic()  # when it was created, or last became idle
        self.first_read = FIRST_READ  # bytes that the first read of a reply may return
        self.armed = 0.0  # the timeout of the socket, in seconds
        self.plain = type(sock) is socket.socket and socket.socket.__module__ == "socket"
        if self.plain:
            sock.settimeout(None)
        self.secure = isinstance(sock, ssl.SSLSocket)
        self.whole = ONE_RECORD if self.secure else SMALL  # bytes of a command in one piece
        # The straight way of a `Get`, for plain sockets and wires that have one.
        self.start_get: Callable[[bytes], bytes | None] = _start_nothing
        if self.plain and hasattr(wire, "start_get"):
            straight = cast("StraightWire", wire)
            self.start_get, self.end_get = straight.start_get, straight.end_get
            self.expect_get = straight.expect_get
        # The straight way of small writes, likewise.
        self.start: Callable[[Command], bytes | None] = _start_nothing
        if self.plain and hasattr(wire, "start"):
            writing = cast("StraightWrites", wire)
            self.start, self.end, self.expect = writing.start, writing.end, writing.expect
        # Where a plain socket writes what is to come of a large value, for wires that have such a place.
        self.room: Callable[[], memoryview | None] = _no_room
        if self.plain and hasattr(wire, "room"):
            roomy = cast("RoomyWire", wire)
            self.room, self.take = roomy.room, roomy.take

    def arm(self, seconds: float) -> None:
        """Set the timeout of `send` and `recv`; raise `TimeoutError` unless `seconds` is above zero."""
        if seconds <= 0:
            raise TimeoutError
        if seconds <= self.armed <= seconds + SLACK:
            return
        self.armed = seconds = seconds + SLACK / 2
        if not self.plain:
            self.sock.settimeout(seconds)
            return
        whole = int(seconds)
        value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; raise `BlockingIOError` if nothing can."""
        if self.plain:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        return self._nonblocking().send(data)

    def try_send_all(self, chunks: Sequence[memoryview]) -> int:
        """Do the same for some of many chunks, all at once if the socket can."""
        if self.plain and len(chunks) > 1:
            return self.sock.sendmsg(islice(chunks, CHUNKS), (), socket.MSG_DONTWAIT)
        return self.try_send(chunks[0])

    def try_recv(self, size: int) -> bytes:
        """Receive what has arrived; raise `BlockingIOError` if nothing has."""
        if self.plain:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        return self._nonblocking().recv(size)

    def recv_after_timeout(self, size: int) -> bytes:
        """Receive what has arrived when a timeout fired; raise `TimeoutError` if nothing has.

        With a busy gevent hub a late timer may fire before the data is reported.
        """
        try:
            return self.try_recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None

    def _nonblocking(self) -> socket.socket:
        if self.armed:
            self.armed = 0.0
            self.sock.settimeout(0)
        return self.sock

    @property
    def stale(self) -> bool:
        """Return whether the server has closed it, or sent bytes that were not asked for."""
        return bool(self.poll(0))

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        self.sock.close()

    # An interrupt between two bytecodes may drop a connection. It takes no slot with it: the pool
    # counts living objects, and a dying connection closes its socket. Not a `weakref.finalize`: an
    # interrupt inside it leaks the socket, and at exit it runs before the program's own handlers.
    def __del__(self) -> None:
        try:
            self.sock.close()
        except AttributeError:  # an interrupt came before it had a socket
            return


def _start_nothing(_: object) -> None:
    """Return no request: every command takes the general way."""


def _no_room() -> None:
    """Return no room: all that arrives is fed to the wire."""


class Slot:
    """A place for one connection, reserved while it is dialed."""

    __slots__ = ("__weakref__", "since")

    def __init__(self) -> None:
        self.since = time.monotonic()


class Pool:
    """At most `size` connections, last in, first out. Thread-safe and fork-safe.

    `get_idle` and `put` are on the hot path and take no lock: a deque's `pop` and `append` are
    atomic. Connections and slots are counted by weak references, so that an interrupt that drops
    one between two bytecodes frees its slot as well.
    """

    def __init__(self, node: str, size: int, incarnation: Incarnation | None = None) -> None:
        self.node = node
        self.size = size
        self._incarnation = Incarnation() if incarnation is None else incarnation
        self.closed = False
        self._ejections = 0
        # Connections that the server refused while others of it were open.
        self.refused_connections = 0
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self.idle: deque[Connection] = deque()
        self._live: LiveObjects[Connection | Slot] = LiveObjects()
        # The waiting threads, first come first. Weak, so that an interrupted one leaves the queue.
        self._waiters: deque[weakref.ref[Waiter]] = deque()
        # Reentrant: the garbage collector or a signal may run the program's code while it is held,
        # and that code may call this node.
        self._count_lock = threading.RLock()
        self._limit = DialLimit()

    def get_idle(self) -> Connection | None:
        """Return an idle connection that still works, or `None`."""
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.since < RESTED or not connection.stale:
                return connection
            self._incarnation.end()
            self.discard(connection)

    def put(self, connection: Connection) -> None:
        """Put a connection back; close it unless it is at a reply boundary."""
        if self.closed or not connection.wire.idle:
            self.discard(connection)
            return
        connection.answered = False
        connection.since = time.monotonic()
        self.idle.append(connection)
        if self.closed:  # since the check above
            self.drop_idle()
        if self._waiters:
            self._wake()

    def discard(self, connection: Connection) -> None:
        """Close a connection and free its slot."""
        connection.close()
        self._live.discard(connection)
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        """Wake the first waiting thread."""
        while True:
            try:
                wakeup = self._waiters.popleft()()
            except IndexError:
                return
            if wakeup is not None:
                wakeup.set()
                return

    def reserve(self, deadline: float) -> Connection | Slot:
        """Return a connection, or a slot for a new one (then call `add` or `release`).

        Raise `PoolTimeoutError` if there is neither by `deadline`, `NodeUnavailableError` if the
        node is ejected meanwhile.
        """
        reserved = self.get_idle() or self._try_add_slot()
        if reserved is not None:
            return reserved
        ejections = self._ejections
        wakeup = ThreadWakeup()
        waiter = self._enter_queue(wakeup)
        try:
            while (reserved := self._try_reserve(ejections)) is None:
                if not wakeup.wait(self._next_wait(deadline)):
                    self._collect_dropped()
                if wakeup.clear():
                    self._waiters.appendleft(waiter)
            return reserved
        finally:
            self._leave_queue(waiter, wakeup)

    def reserve_in_steps(self, deadline: float) -> Generator[Wait, None, Connection | Slot]:
        """Do the same as `reserve` in steps, so that the thread can drive other exchanges meanwhile.

        So threads that hold connections of some nodes and wait for others do not deadlock.
        """
        reserved = self.get_idle() or self._try_add_slot()
        if reserved is not None:
            return reserved
        ejections = self._ejections
        wakeup = self._make_wakeup()
        waiter = self._enter_queue(wakeup)
        try:
            while (reserved := self._try_reserve(ejections)) is None:
                until = min(deadline, time.monotonic() + self._next_wait(deadline))
                try:
                    yield Wait(wakeup.fileno(), select.POLLIN, until)
                except Expired:
                    self._collect_dropped()
                if wakeup.clear():
                    self._waiters.appendleft(waiter)
            return reserved
        finally:
            self._leave_queue(waiter, wakeup)

    def _make_wakeup(self) -> Wakeup:
        try:
            return Wakeup()
        except OSError as error:
            raise PoolTimeoutError(
                f"all {self.size} connections are in use, and waiting for one needs a descriptor",
                self.node,
            ) from error

    def _enter_queue(self, wakeup: Waiter) -> weakref.ref[Waiter]:
        """Join the queue of waiting threads."""
        waiter = weakref.ref(wakeup)
        self._waiters.append(waiter)
        return waiter

    def _leave_queue(self, waiter: weakref.ref[Waiter], wakeup: Waiter) -> None:
        """Leave the queue."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)
        if wakeup.is_set:  # but this thread leaves without a connection
            self._wake()

    def _try_reserve(self, ejections: int) -> Connection | Slot | None:
        """Return a connection or a slot, if any; raise if the node was ejected since waiting began."""
        reserved = self.get_idle() or self._try_add_slot()
        if reserved is None and self._ejections != ejections:
            raise NodeUnavailableError("was ejected", self.node)
        return reserved

    def _try_add_slot(self) -> Slot | None:
        with self._count_lock:
            if self._live.count_with_dead() >= self.size:
                self._live.remove_dead()
                if self._live.count_with_dead() >= self.size:
                    return None
            if not self._limit.may_dial(time.monotonic()) and self._live.count():
                return None
            slot = Slot()
            self._live.add(slot)
            if self._live.count_with_dead() <= self.size:
                return slot
            self._live.discard(slot)  # a finalizer came in between and took the last slot
            return None

    def _collect_dropped(self) -> None:
        """Free the slots of connections that an interrupt dropped within reference cycles.

        Collecting young cycles costs little. Old ones are collected only if a connection has been in
        use for so long that it may be in one.
        """
        _collect_garbage(_YOUNG)
        long_ago = time.monotonic() - MISSED
        if any(each.since < long_ago for each in self._live):
            _collect_garbage(_ALL)

    def _next_wait(self, deadline: float) -> float:
        """Return how long to wait before checking again: a dropped connection wakes no thread."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise PoolTimeoutError(
                f"all {self.size} connections were in use until the deadline", self.node
            )
        return min(remaining, _WAIT_SLICE)

    def add(self, connection: Connection, slot: Slot) -> None:
        """Count a new connection in its reserved slot."""
        with self._count_lock:
            self._live.add(connection)
            self._live.discard(slot)

    def release(self, slot: Slot) -> None:
        """Free a reserved slot without using it."""
        self._live.discard(slot)
        if self._waiters:
            self._wake()

    def record_connected(self) -> None:
        """Record that the server has answered on a new connection."""
        with self._count_lock:
            self._limit.record_success()

    def record_refused(self) -> bool:
        """Record that the server refused a connection; return whether others are open.

        Those are used then, and further ones are dialed one at a time, with pauses.
        """
        with self._count_lock:
            number = self._live.count()
            if not number:
                return False
            self.refused_connections += 1
            first = self._limit.record_refusal(time.monotonic())
        if first:
            log.warning(
                "%s takes no more connections: continuing with the %d that are open",
                self.node,
                number,
            )
        return True

    def close(self) -> None:
        """Drop idle connections now, and busy ones when they are put back."""
        self.closed = True
        self.drop_idle()

    def eject(self) -> None:
        """Drop idle connections, and wake every thread that waits for one."""
        self._ejections += 1
        self.drop_idle()
        for _ in range(len(self._waiters)):
            self._wake()

    def drop_idle(self) -> None:
        """Close every idle connection."""
        while True:
            try:
                self.discard(self.idle.pop())
            except IndexError:
                return

    @property
    def open(self) -> int:
        """Return how many connections there are, idle and busy."""
        return self._live.count()

    @property
    def use(self) -> PoolUse:
        """Return how many connections are open, and how many of them are in use."""
        idle = len(self.idle)
        number = self._live.count()
        return PoolUse(number, max(0, number - idle), self.size)

    def reset_after_fork(self) -> None:
        """Start empty in a forked child: the parent goes on using the same sockets."""
        inherited = [each for each in self._live if isinstance(each, Connection)]
        self._start()
        for connection in inherited:
            connection.close()  # closes the child's descriptor; nothing is shut down or sent


_next_collection: dict[int, float] = {}  # by generation: when it may be collected again


def _collect_garbage(generation: int) -> None:
    """Collect a generation and the younger ones, for at most half of `GARBAGE_SHARE` of the time."""
    began = time.monotonic()
    if began < _next_collection.get(generation, 0.0):
        return
    _next_collection[generation] = began + _STUCK  # only one thread collects
    try:
        gc.collect(generation)
    finally:
        ended = time.monotonic()
        _next_collection[generation] = ended + (ended - began) / (GARBAGE_SHARE / 2)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    _next_collection.clear()
    for pool in list(_pools):
        pool.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
