"""The connections of one node that blocking threads lend and bring back."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator
from typing import Final

from shardcache.backends.live_objects import LiveObjects
from shardcache.backends.transport.dial import Expired, Wait
from shardcache.backends.transport.limits import DialLimit
from shardcache.backends.transport.wakeups import ThreadWakeup, Wakeup
from shardcache.backends.wire import Incarnation, Wire
from shardcache.errors import NodeUnavailableError, PoolTimeoutError

# After a rest this long a connection is looked at before it is used again: the server may have
# closed it. Within a busy loop the look would cost 1 µs of a 20 µs round trip and find nothing.
RESTED: Final = 0.05  # seconds
SLACK: Final = 0.005  # seconds by which a socket's own timeout may pass a deadline
_WAIT_SLICE: Final = 0.05  # seconds
GARBAGE_SHARE: Final = 0.05  # of the time at most is spent on collecting garbage
_YOUNG: Final = 1  # the generation of what is collected in milliseconds
_ALL: Final = 2  # and of what takes a second in a large program
MISSED: Final = 1.0  # seconds without coming back after which a connection may have been dropped
_ABANDONED: Final = 10.0  # seconds after which a collection that never ended keeps off no other

Waiter = ThreadWakeup | Wakeup

log = logging.getLogger("shardcache")


class Connection:
    """A socket at a reply boundary or in the middle of one exchange, with its wire.

    Plain sockets have a timeout of the kernel's (`SO_RCVTIMEO`), set again only when a deadline is
    shorter: Python's own costs a poll before every read. Sockets of TLS, and those that gevent
    has replaced, have Python's.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "answered",
        "arrived",
        "plain",
        "poll",
        "reading",
        "recv",
        "send",
        "since",
        "sock",
        "wire",
    )

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self.sock = sock
        self.wire = wire
        # What to wait with where signals come in, before `recv`: Python goes on with a `recv` that a
        # signal has interrupted, and the kernel's timeout would begin anew each time; with `poll`
        # Python minds the time itself.
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.poll = poll.poll
        self.send = sock.send
        self.recv = sock.recv
        self.reading = Wait(sock.fileno(), select.POLLIN)
        # Whether the node has shown life since it was lent: a new connection just has.
        self.answered = True
        self.arrived = 0.0  # when a part of a reply last came
        self.since = time.monotonic()  # when it was made, or last came to rest
        self._armed = 0.0
        self.plain = type(sock) is socket.socket and socket.socket.__module__ == "socket"
        if self.plain:
            sock.settimeout(None)

    def arm(self, seconds: float) -> None:
        """Let `send` and `recv` wait for `seconds`; raise `TimeoutError` when that is none."""
        if seconds <= 0:
            raise TimeoutError
        if seconds <= self._armed <= seconds + SLACK:
            return
        self._armed = seconds = seconds + SLACK / 2
        if not self.plain:
            self.sock.settimeout(seconds)
            return
        whole = int(seconds)
        value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; raise `BlockingIOError` when nothing can."""
        if self.plain:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        return self._nonblocking().send(data)

    def try_recv(self, size: int) -> bytes:
        """Receive what is there; raise `BlockingIOError` when nothing is."""
        if self.plain:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        return self._nonblocking().recv(size)

    def recv_after_timeout(self, size: int) -> bytes:
        """Receive what is there after all; raise `TimeoutError` when nothing is.

        A timer of gevent that fires late, because the hub was busy, may come before the data.
        """
        try:
            return self.try_recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None

    def _nonblocking(self) -> socket.socket:
        if self._armed:
            self._armed = 0.0
            self.sock.settimeout(0)
        return self.sock

    @property
    def stale(self) -> bool:
        """Return whether the server has closed it, or sent what nobody asked for."""
        return bool(self.poll(0))

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        self.sock.close()

    # A connection lost by an interrupt between two bytecodes takes no slot with it: the pool counts
    # what lives, and what dies closes its socket. Not a `weakref.finalize`: an interrupt inside that
    # keeps the socket for ever, and at the exit it comes before the program's own handlers.
    def __del__(self) -> None:
        try:
            self.sock.close()
        except AttributeError:  # the interrupt came before it had one
            return


class Slot:
    """Room for one connection, kept while it is being dialed."""

    __slots__ = ("__weakref__", "since")

    def __init__(self) -> None:
        self.since = time.monotonic()


class Pool:
    """At most `size` connections, the last one returned first out. Thread-safe and fork-safe.

    `get_idle` and `put` are the hot ways and take no lock: a deque's `pop` and `append` are atomic.
    Connections and places are counted while somebody holds them, so that an interrupt between two
    bytecodes, which drops one, frees its place as well.
    """

    def __init__(self, node: str, size: int, incarnation: Incarnation | None = None) -> None:
        self.node = node
        self.size = size
        self._incarnation = Incarnation() if incarnation is None else incarnation
        self.closed = False
        self._ejections = 0
        self.discarded = 0  # idle connections found closed by the server
        self.refused_connections = (
            0  # connections that the server refused while others of it were open
        )
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._idle: deque[Connection] = deque()
        self._live: LiveObjects[Connection | Slot] = LiveObjects()
        # Of those who wait, the first in line first. Weak, so that whoever is interrupted is gone.
        self._waiters: deque[weakref.ref[Waiter]] = deque()
        # Reentrant: the garbage collector or a signal may call the program's code while it is held,
        # and that may ask this node.
        self._count_lock = threading.RLock()
        self._limit = DialLimit()

    def get_idle(self) -> Connection | None:
        """Return a connection that rests here, if there is one that is still good."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.since < RESTED or not connection.stale:
                return connection
            self.discarded += 1
            self._incarnation.end()
            self.discard(connection)

    def put(self, connection: Connection) -> None:
        """Take a connection back; close it unless it is at a reply boundary."""
        if self.closed or not connection.wire.idle:
            self.discard(connection)
            return
        connection.answered = False
        connection.since = time.monotonic()
        self._idle.append(connection)
        if self.closed:  # since the look above
            self.drop_idle()
        if self._waiters:
            self._wake()

    def discard(self, connection: Connection) -> None:
        """Close a connection and free its place."""
        connection.close()
        self._live.discard(connection)
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        """Wake the first in line."""
        while True:
            try:
                wakeup = self._waiters.popleft()()
            except IndexError:
                return
            if wakeup is not None:
                wakeup.set()
                return

    def reserve(self, deadline: float) -> Connection | Slot:
        """Return a connection, or a place for a new one (then `add` or `release`).

        Raise `PoolTimeoutError` when neither is there by `deadline`, `NodeUnavailableError` when
        the node is ejected meanwhile.
        """
        held = self.get_idle() or self._slot()
        if held is not None:
            return held
        ejections = self._ejections
        wakeup = ThreadWakeup()
        waiter = self._enter_queue(wakeup)
        try:
            while (held := self._try_reserve(ejections)) is None:
                if not wakeup.wait(self._next_wait(deadline)):
                    self._collect_dropped()
                if wakeup.clear():
                    self._waiters.appendleft(waiter)
            return held
        finally:
            self._leave_queue(waiter, wakeup)

    def reserve_in_steps(self, deadline: float) -> Generator[Wait, None, Connection | Slot]:
        """Return what `reserve` does, in steps: whoever waits so goes on driving other exchanges.

        So threads that hold connections of some nodes and wait for those of others come free.
        """
        held = self.get_idle() or self._slot()
        if held is not None:
            return held
        ejections = self._ejections
        wakeup = self._wakeup()
        waiter = self._enter_queue(wakeup)
        try:
            while (held := self._try_reserve(ejections)) is None:
                until = min(deadline, time.monotonic() + self._next_wait(deadline))
                try:
                    yield Wait(wakeup.fileno(), select.POLLIN, until)
                except Expired:
                    self._collect_dropped()
                if wakeup.clear():
                    self._waiters.appendleft(waiter)
            return held
        finally:
            self._leave_queue(waiter, wakeup)

    def _wakeup(self) -> Wakeup:
        try:
            return Wakeup()
        except OSError as error:
            raise PoolTimeoutError(
                f"all {self.size} connections are in use, and there is no waiting", self.node
            ) from error

    def _enter_queue(self, wakeup: Waiter) -> weakref.ref[Waiter]:
        """Stand last in line."""
        waiter = weakref.ref(wakeup)
        self._waiters.append(waiter)
        return waiter

    def _leave_queue(self, waiter: weakref.ref[Waiter], wakeup: Waiter) -> None:
        """Step out of the line."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)
        if wakeup.is_set:  # and goes without what it was set for
            self._wake()

    def _try_reserve(self, ejections: int) -> Connection | Slot | None:
        """Return what there is; send away who has waited since before an ejection."""
        held = self.get_idle() or self._slot()
        if held is None and self._ejections != ejections:
            raise NodeUnavailableError("was ejected", self.node)
        return held

    def _slot(self) -> Slot | None:
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
            self._live.discard(slot)  # a finalizer has come in between, and taken the last one
            return None

    def _collect_dropped(self) -> None:
        """Free the places of connections that an interrupt dropped within reference cycles.

        Young cycles are looked for at little cost. A connection in an old one has not come back for
        long: unless there is one that may be so, the rest of the heap is left alone.
        """
        _collect_garbage(_YOUNG)
        long_ago = time.monotonic() - MISSED
        if any(held.since < long_ago for held in self._live):
            _collect_garbage(_ALL)

    def _next_wait(self, deadline: float) -> float:
        """Return how long to wait at a time: what an interrupt dropped frees its place without a word."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise PoolTimeoutError(f"all {self.size} connections stayed in use", self.node)
        return min(remaining, _WAIT_SLICE)

    def add(self, connection: Connection, slot: Slot) -> None:
        """Count a new connection as living, in the place reserved for it."""
        with self._count_lock:
            self._live.add(connection)
            self._live.discard(slot)

    def release(self, slot: Slot) -> None:
        """Return a reserved place back unused."""
        self._live.discard(slot)
        if self._waiters:
            self._wake()

    def record_connected(self) -> None:
        """Note that the server has answered on a new connection."""
        with self._count_lock:
            self._limit.record_success()

    def record_refused(self) -> bool:
        """Note that the server takes no more connections; return whether there are open ones.

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
                "%s takes no more connections: going on with the %d that are open",
                self.node,
                number,
            )
        return True

    def close(self) -> None:
        """Drop idle connections now, and busy ones as they come back."""
        self.closed = True
        self.drop_idle()

    def eject(self) -> None:
        """Drop idle connections, and send away all who wait for one."""
        self._ejections += 1
        self.drop_idle()
        for _ in range(len(self._waiters)):
            self._wake()

    def drop_idle(self) -> None:
        """Close every connection that rests here."""
        while True:
            try:
                self.discard(self._idle.pop())
            except IndexError:
                return

    @property
    def open(self) -> int:
        """Return how many connections there are, resting and busy."""
        return self._live.count()

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: its parent goes on using the same sockets."""
        inherited = [held for held in self._live if isinstance(held, Connection)]
        self._start()
        for connection in inherited:
            connection.close()  # closes the child's descriptor; nothing is shut down or sent


_next_collection: dict[int, float] = {}  # by generation: when it may be collected again


def _collect_garbage(generation: int) -> None:
    """Collect a generation and those below, for half of `GARBAGE_SHARE` of the time at most."""
    began = time.monotonic()
    if began < _next_collection.get(generation, 0.0):
        return
    _next_collection[generation] = began + _ABANDONED  # one thread does it
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
