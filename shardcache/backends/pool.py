"""The connections of one node that blocking threads lend and bring back."""

from __future__ import annotations

import gc
import logging
import os
import queue
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from typing import Final

from shardcache.backends.base import Runs, Wire
from shardcache.backends.dialing import Expired, Wait
from shardcache.backends.limits import DialLimit
from shardcache.backends.wakeups import Wakeup
from shardcache.errors import NodeUnavailableError, PoolTimeoutError

# After a rest this long a connection is looked at before it is used again: the server may have
# closed it. Within a busy loop the look would cost 1 µs of a 20 µs round trip and find nothing.
RESTED: Final = 0.05  # seconds
SLACK: Final = 0.005  # seconds by which a socket's own timeout may pass a deadline
_WAIT_SLICE: Final = 0.05  # seconds
GARBAGE_SHARE: Final = 0.05

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
        "arrived",
        "heard",
        "plain",
        "poll",
        "reading",
        "recv",
        "rested_since",
        "send",
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
        self.heard = True
        self.arrived = 0.0  # when a part of a reply last came
        self.rested_since = 0.0
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
        return self._without_waiting().send(data)

    def try_recv(self, size: int) -> bytes:
        """Receive what is there; raise `BlockingIOError` when nothing is."""
        if self.plain:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        return self._without_waiting().recv(size)

    def look_again(self, size: int) -> bytes:
        """Receive what is there after all; raise `TimeoutError` when nothing is.

        A timer of gevent that fires late, because the hub was busy, may come before the data.
        """
        try:
            return self.try_recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None

    def _without_waiting(self) -> socket.socket:
        if self._armed:
            self._armed = 0.0
            self.sock.settimeout(0)
        return self.sock

    @property
    def stale(self) -> bool:
        """Say whether the server has closed it, or sent what nobody asked for."""
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


class Place:
    """Room for one connection, kept while it is being dialed."""

    __slots__ = ("__weakref__",)


class Living:
    """The connections and places that are still alive. It holds weak references only.

    Not a `WeakSet`: an interrupt in its Python code leaves the dead in it for ever. Safe without a
    lock, for each step is one of a dict's own.
    """

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[Connection | Place]] = {}

    def add(self, held: Connection | Place) -> None:
        """Count it from now on."""
        self._references[id(held)] = weakref.ref(held)

    def discard(self, held: Connection | Place) -> None:
        """Count it no more."""
        self._references.pop(id(held), None)

    def count(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)

    def at_most(self) -> int:
        """Return how many there are, the dead among them: at no cost."""
        return len(self._references)

    def forget_dead(self) -> None:
        """Remove the references to what has died."""
        # Not its items: making pairs may collect garbage, and what dies then may change the dict.
        for number in list(self._references):
            reference = self._references.get(number)
            if reference and reference() is None and self._references.get(number) is reference:
                self._references.pop(number, None)

    def __iter__(self) -> Iterator[Connection | Place]:
        for reference in list(self._references.values()):
            if (held := reference()) is not None:
                yield held


class Pool:
    """At most `size` connections, the last one returned first out. Thread-safe and fork-safe.

    `idle` and `give` are the hot ways and take no lock: a deque's `pop` and `append` are atomic.
    Connections and places are counted while somebody holds them, so that an interrupt between two
    bytecodes, which drops one, frees its place as well.
    """

    def __init__(self, node: str, size: int, runs: Runs | None = None) -> None:
        self.node = node
        self.size = size
        self._runs = Runs() if runs is None else runs
        self.closed = False
        self._ejections = 0
        self.discarded = 0  # idle connections found closed by the server
        self.limited = 0  # connections that the server refused while others of it were open
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._resting: deque[Connection] = deque()
        self._living = Living()
        self._waiting = 0
        self._wakeups: deque[weakref.ref[Wakeup]] = deque()  # of those who wait beside other nodes
        # Wakes those who wait. Not a Condition: an interrupt in its Python code could leave its
        # lock held for ever.
        self._returned: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Reentrant: the garbage collector or a signal may call the program's code while it is held,
        # and that may ask this node.
        self._counting = threading.RLock()
        self._limit = DialLimit()

    def idle(self) -> Connection | None:
        """Give a connection that rests here, if there is one that is still good."""
        while True:
            try:
                connection = self._resting.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.rested_since < RESTED or not connection.stale:
                return connection
            self.discarded += 1
            self._runs.end()
            self.lose(connection)

    def give(self, connection: Connection) -> None:
        """Take a connection back; close it unless it is at a reply boundary."""
        if self.closed or not connection.wire.idle:
            self.lose(connection)
            return
        connection.heard = False
        connection.rested_since = time.monotonic()
        self._resting.append(connection)
        if self.closed:  # since the look above
            self.drop_idle()
        if self._waiting:
            self._wake()

    def lose(self, connection: Connection) -> None:
        """Close a connection and free its place."""
        connection.close()
        self._living.discard(connection)
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        if self._waiting > len(self._wakeups):
            self._returned.put(None)
        self._wake_beside()

    def _wake_beside(self) -> None:
        """Wake the first of those who wait beside other nodes."""
        while True:
            try:
                wakeup = self._wakeups.popleft()()
            except IndexError:
                return
            if wakeup is not None:
                wakeup.set()
                return

    def reserve(self, deadline: float) -> Connection | Place:
        """Give a connection, or a place for a new one (then `adopt` or `release`).

        Raise `PoolTimeoutError` when neither is there by `deadline`, `NodeUnavailableError` when
        the node is ejected meanwhile.
        """
        self._waiting += 1
        ejections = self._ejections
        try:
            while True:
                held = self._at_once(ejections)
                if held is not None:
                    return held
                self._wait(deadline)
        finally:
            self._waiting -= 1

    def reserved(self, deadline: float) -> Generator[Wait, None, Connection | Place]:
        """Give what `reserve` gives, in steps: whoever waits so goes on driving other exchanges.

        So threads that hold connections of some nodes and wait for those of others come free.
        """
        held = self.idle() or self._place()
        if held is not None:
            return held
        wakeup = self._queued()
        self._waiting += 1
        ejections = self._ejections
        try:
            while True:
                held = self._at_once(ejections)
                if held is not None:
                    return held
                until = min(deadline, time.monotonic() + self._slice(deadline))
                try:
                    yield Wait(wakeup.fileno(), select.POLLIN, until)
                except Expired:
                    _collect_garbage()
                if wakeup.is_set:
                    wakeup.clear()
                    self._wakeups.append(weakref.ref(wakeup))
        finally:
            self._waiting -= 1
            if wakeup.is_set:  # and goes without what it was set for
                self._wake_beside()

    def _queued(self) -> Wakeup:
        try:
            wakeup = Wakeup()
        except OSError as error:
            raise PoolTimeoutError(
                f"all {self.size} connections are in use, and there is no waiting", self.node
            ) from error
        self._wakeups.append(weakref.ref(wakeup))
        return wakeup

    def _at_once(self, ejections: int) -> Connection | Place | None:
        """Give what there is; send away who has waited since before an ejection."""
        held = self.idle() or self._place()
        if held is None and self._ejections != ejections:
            raise NodeUnavailableError("was ejected", self.node)
        return held

    def _place(self) -> Place | None:
        with self._counting:
            if self._living.at_most() >= self.size:
                self._living.forget_dead()
                if self._living.at_most() >= self.size:
                    return None
            if not self._limit.may_dial(time.monotonic()) and self._living.count():
                return None
            place = Place()
            self._living.add(place)
            return place

    def _wait(self, deadline: float) -> None:
        try:
            self._returned.get(timeout=self._slice(deadline))
        except queue.Empty:
            _collect_garbage()

    def _slice(self, deadline: float) -> float:
        """Give how long to wait at a time: what an interrupt dropped frees its place without a word."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise PoolTimeoutError(f"all {self.size} connections stayed in use", self.node)
        return min(remaining, _WAIT_SLICE)

    def adopt(self, connection: Connection, place: Place) -> None:
        """Count a new connection as living, in the place reserved for it."""
        with self._counting:
            self._living.add(connection)
            self._living.discard(place)

    def release(self, place: Place) -> None:
        """Give a reserved place back unused."""
        self._living.discard(place)
        if self._waiting:
            self._wake()

    def welcomed(self) -> None:
        """Note that the server has answered on a new connection."""
        with self._counting:
            self._limit.made()

    def refused(self) -> bool:
        """Note that the server takes no more connections; return whether there are open ones.

        Those are used then, and further ones are dialed one at a time, with pauses.
        """
        with self._counting:
            number = self._living.count()
            if not number:
                return False
            self.limited += 1
            first = self._limit.refused(time.monotonic())
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
        for _ in range(self._waiting):
            self._wake()

    def drop_idle(self) -> None:
        """Close every connection that rests here."""
        while True:
            try:
                self.lose(self._resting.pop())
            except IndexError:
                return

    @property
    def open(self) -> int:
        """Give how many connections there are, resting and busy."""
        return self._living.count()

    def forget_inherited(self) -> None:
        """Start anew in a forked child: its parent goes on using the same sockets."""
        inherited = [held for held in self._living if isinstance(held, Connection)]
        self._start()
        for connection in inherited:
            connection.close()  # closes the child's descriptor; nothing is shut down or sent


class _Garbage:
    """When garbage is collected next."""

    due = 0.0


def _collect_garbage() -> None:
    """Collect garbage: a connection that an interrupt dropped may be part of a reference cycle.

    That takes long in a large program, so it is done for `GARBAGE_SHARE` of the time at most.
    """
    began = time.monotonic()
    if began < _Garbage.due:
        return
    _Garbage.due = float("inf")  # one thread does it
    try:
        gc.collect()
    finally:
        ended = time.monotonic()
        _Garbage.due = ended + (ended - began) / GARBAGE_SHARE


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forget_inherited()


os.register_at_fork(after_in_child=_after_fork)
