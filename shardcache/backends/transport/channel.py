"""One connection of one event loop: calls to send, and calls that wait for a reply."""

from __future__ import annotations

import asyncio
import heapq
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from shardcache.backends.base import LAST_WAIT, BackendOptions, cut_off_error, excuse
from shardcache.backends.transport.calls import Call
from shardcache.backends.transport.channel_reference import ChannelReference, drop, read, sweep
from shardcache.backends.transport.dial import NOT_REACHED, Target, dial
from shardcache.backends.transport.loop_steps import run_steps, unwatch
from shardcache.backends.transport.sockets import (
    ONE_RECORD,
    READ,
    RESTED,
    WOULD_BLOCK,
    part_last_byte,
)
from shardcache.backends.wire import Wire
from shardcache.core.capabilities import IDEMPOTENT
from shardcache.core.commands import Get, Reply
from shardcache.errors import (
    ConnectTimeoutError,
    NodeError,
    NodeTimeoutError,
    NodeUnavailableError,
    ShardCacheError,
    TooManyConnectionsError,
)

JOIN_LIMIT: Final = 256 * 1024  # bytes; more is sent in pieces, without a copy

# When a reply is late and no byte has arrived for this share of a call's timeout, the connection
# stalls: later calls use a new one.
SILENCE: Final = 0.75

# A timer that fires later than this was delayed by this process. Bytes that have arrived meanwhile
# are read first, and calls get as long again, up to `LONGEST_GRACE`.
OWN_DELAY: Final = 0.05  # seconds
LONGEST_GRACE: Final = 0.1  # seconds

TOGETHER: Final = 4  # gets; fewer take no longer one by one
_ONLY_GETS: Final = frozenset({Get})


class ChannelOwner(Protocol):
    """What a channel needs from its backend."""

    target: Target
    node: str
    options: BackendOptions
    retired: bool
    retried: int
    dialed: int

    def submit(self, call: Call) -> None:
        """Send a call over its loop's connection; open one if there is none."""

    def replace(self, channel: Channel) -> None:
        """Stop using a channel that stalls."""

    def record_connected(self) -> None:
        """Record that the server has answered on a new connection."""

    def record_refused(self, channel: Channel, error: NodeError) -> NodeError:
        """Record that the server refused a connection; return the error for its callers."""

    def forget(self, channel: Channel) -> None:
        """Drop a channel that is closed."""


class Channel:
    """One connection of one loop: calls to send, and calls that wait for a reply."""

    __slots__ = (
        "__weakref__",
        "_answered",
        "_asked_at",
        "_backend",
        "_delay",
        "_delayed_until",
        "_descriptor",
        "_dial",
        "_drained",
        "_flushing",
        "_last_received",
        "_last_used",
        "_latest_deadline",
        "_poll",
        "_queued",
        "_reference",
        "_secure",
        "_sent",
        "_sock",
        "_stalled",
        "_timer",
        "_timer_at",
        "_unsent",
        "_urgent",
        "_wire",
        "_writing",
        "loop",
    )

    def __init__(self, backend: ChannelOwner, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self.loop = loop
        self._sock: socket.socket | None = None
        self._secure = False  # whether that is over TLS
        self._wire: Wire | None = None
        self._queued: deque[Call] = deque()  # sent at the end of this turn, or of the dial
        self._sent: deque[Call] = deque()  # waiting for a reply, in the order of the replies
        # A heap of calls whose deadline is earlier than that of a call sent before them: a later step
        # of an operation is sent after the first steps of newer operations.
        self._urgent: list[tuple[float, int, Call]] = []
        self._latest_deadline = 0.0  # the latest deadline of all calls so far
        self._unsent: deque[bytes | memoryview] = deque()
        self._flushing = False
        self._writing = False
        self._answered = False  # whether this connection has ever answered
        self._last_used = 0.0  # when something was last sent or received
        self._last_received = 0.0  # when something last arrived
        self._asked_at = (
            0.0  # when something was last sent while no reply was owed; 0 before the first
        )
        self._stalled = False  # whether another connection has replaced this one
        self._delay = 0.0  # seconds for which this process was last delayed
        self._delayed_until = 0.0  # deadlines up to here passed during that delay
        self._descriptor = -1
        self._poll = select.poll()
        self._reference = ChannelReference(self)
        self._dial: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when the timer will fire
        self._drained: asyncio.Future[None] | None = None

    def submit(self, call: Call) -> None:
        """Send the call's command with all others of this turn; dial first if there is no connection."""
        queued = self._queued
        if not self._sent and not queued and self._closed_by_node():
            self._backend.submit(call)  # over a new connection
            return
        self._reference.channel = self
        if call.deadline < self._latest_deadline:
            heapq.heappush(self._urgent, (call.deadline, id(call), call))
        else:
            self._latest_deadline = call.deadline
        queued.append(call)
        if self._wire is None:
            if self._dial is None or self._dial.done():
                self._dial = self.loop.create_task(self._connect(call.deadline))
        elif not self._flushing and not self._writing:
            self.loop.call_soon(self._flush)
            self._flushing = (
                True  # last: an interrupt before it costs another flush, after it all calls
            )
        if self._timer is None or call.deadline < self._timer_at:
            self._watch(call.deadline)

    @property
    def connected(self) -> bool:
        """Return whether there is a connection."""
        return self._sock is not None

    @property
    def busy(self) -> bool:
        """Return whether there is a connection that has calls without a reply."""
        return self._sock is not None and bool(self._sent or self._queued)

    def _closed_by_node(self) -> bool:
        """Return whether an idle connection turned out to be closed; it is closed here as well.

        A loop that did not run has not noticed, as with one `run_until_complete` per request.
        """
        if self._sock is None or time.monotonic() - self._last_used < RESTED:
            return False
        if self._poll.poll(0):
            self.readable()
        return self._sock is None

    async def drain(self) -> None:
        """Wait until every call is settled or the node is silent, then close."""
        began = time.monotonic()
        while self._has_waiters:
            left = max(began, self._last_received) + LAST_WAIT - time.monotonic()
            if left <= 0:
                self._cut_off()
                break
            if self._drained is None or self._drained.done():
                self._drained = self.loop.create_future()
            await asyncio.wait((self._drained,), timeout=left)
        dial = self._dial
        self._close()
        if dial is not None:
            await asyncio.wait((dial,))  # it is cancelled, and closes its socket

    def retire(self) -> None:
        """Close now, or after the last reply if any is owed."""
        if not self._sent and not self._queued:
            self._close()

    def _cut_off(self) -> None:
        """Settle the waiting calls with the part of the reply that has arrived, or a timeout."""
        for call in (*self._queued, *self._sent):
            if not call.future.done():
                reply = self._partial_reply(call) or cut_off_error(self._backend.node)
                excuse(reply)
                call.settle(reply)

    def abandon(self, error: NodeError) -> None:
        """Close now, and fail every waiting call with `error`."""
        self._backend.target.incarnation.end()
        for call in (*self._queued, *self._sent):
            call.settle(error)
        self._close()

    def eject(self, latest: float, error: NodeError) -> None:
        """Abandon it, unless a newer call has a deadline later than `latest`."""
        if self._latest_deadline <= latest:
            self.abandon(error)

    def sever(self) -> None:
        """Close only the socket: the loop may be closed, or belong to another process."""
        self._reference.channel = self._reference.sock = None
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    # Not a `weakref.finalize`: those no longer run once the exit has begun, and the loop of an exit
    # handler would go on watching a closed descriptor.
    def __del__(self) -> None:
        try:
            sock = self._sock
        except AttributeError:  # an interrupt came before it had a socket
            return
        if sock is not None:
            self._sock = self._wire = None
            self._backend.forget(self)  # later finalizers may still call the client
            drop(self.loop, sock, self._descriptor)

    def _encode_queued(self, wire: Wire) -> None:
        """Turn the queued commands into bytes to send, and expect their replies."""
        queued = self._queued
        try:
            if queued[0] is queued[-1] or not self._encode_gets(wire):
                self._encode_each(wire)
        except Exception as error:  # such as one of a signal handler
            waiting = list(queued)
            for call in waiting:
                call.settle(error)  # the callers have to see it, whatever it is
            self._abort()
            if not waiting:
                raise
        except BaseException:
            self._abort()
            raise

    def _encode_gets(self, wire: Wire) -> bool:
        """Encode the queued calls in one step if all are gets, in a fifth of the time; return whether they are."""
        queued = self._queued
        if len(queued) < TOGETHER:
            return False
        commands: list[Any] = [call.command for call in queued]
        if set(map(type, commands)) != _ONLY_GETS:
            return False
        self._unsent.extend(wire.encode_gets([key for (key,) in commands]))
        self._sent.extend(queued)
        queued.clear()
        return True

    def _encode_each(self, wire: Wire) -> None:
        queued = self._queued
        while queued:
            call = queued[0]
            try:
                chunks = wire.encode(call.command)
            except ShardCacheError as error:
                call.settle(error)
            else:
                self._unsent.extend(chunks)
                self._sent.append(call)
            queued.popleft()

    async def _connect(self, deadline: float) -> None:
        """Dial once for all queued calls, then send them."""
        options = self._backend.options
        now = time.monotonic()
        until = min(deadline, now + options.connect_timeout)
        # If this process was delayed before it could dial, the first call's deadline may be over.
        until = max(until, now + min(options.connect_timeout, LONGEST_GRACE))
        target = self._backend.target
        try:
            sock, wire = await run_steps(dial(target, until), self.loop)
        except BaseException as error:
            if self._dial is asyncio.current_task():
                self._dial = None
                self._fail_queued(error)
            if not isinstance(error, Exception):
                raise
            return
        if self._dial is not asyncio.current_task():  # this channel was closed meanwhile
            sock.close()
            return
        self._dial = None
        self._backend.dialed += 1
        try:
            self._use(sock, wire)
            self._queued = deque(call for call in self._queued if not call.future.done())
            self.loop.call_soon(self._flush)
        except BaseException:
            self._abort()
            raise
        self._flushing = True

    def _use(self, sock: socket.socket, wire: Wire) -> None:
        """Start to use a connection."""
        self._descriptor = descriptor = sock.fileno()
        self._sock, self._wire = sock, wire
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._last_used = time.monotonic()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._reference.sock = sock
        unwatch(self.loop, descriptor)
        self.loop.add_reader(descriptor, read, self._reference)

    def _fail_queued(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # cancelled or interrupted: no fault of the node
            error = cut_off_error(self._backend.node)
        if isinstance(error, TooManyConnectionsError):
            error = self._backend.record_refused(self, error)
        queued, self._queued = self._queued, deque()
        for call in queued:
            call.settle(error)
        self._after_reply()

    def _flush(self) -> None:
        """Send all commands of this turn in one write."""
        self._flushing = False
        sock, wire = self._sock, self._wire
        if sock is None or wire is None:
            return
        try:  # an interrupt before anything is sent would leave it unsent
            now = time.monotonic()
            if self._timer_at < now - OWN_DELAY and self._timer is not None:
                self.loop.call_soon(self._sweep_if_lost)
            if not self._sent:
                self._asked_at = now
            if self._queued:
                self._encode_queued(wire)
            if not self._unsent:
                self._after_reply()  # no command could be encoded
            elif self._sock is sock:
                self._last_used = now
                self._write(sock)
        except BaseException:
            self._abort()
            raise

    def _write(self, sock: socket.socket) -> None:
        unsent = self._unsent
        try:
            if len(unsent) > 1 and sum(map(len, unsent)) <= JOIN_LIMIT:
                joined = b"".join(unsent)
                unsent.clear()
                unsent.append(joined)
            if self._secure and (self._writing or _are_long(unsent)):
                part_last_byte(unsent)
            _send(sock, unsent)
        except WOULD_BLOCK:
            self._wait_writable()
        except OSError as error:
            self.readable()  # a server without room says so before it closes
            if self._sock is sock:
                self._handle_loss(error)
        except BaseException:
            self._abort()
            raise
        else:
            self._stop_writing()

    def _wait_writable(self) -> None:
        if not self._writing:
            self._writing = True
            self.loop.add_writer(self._descriptor, self._flush)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.loop.remove_writer(self._descriptor)

    def readable(self) -> None:
        """Receive the bytes that have arrived and settle the call of each reply."""
        sock, wire = self._sock, self._wire
        if sock is None or wire is None:  # closed in this turn of the loop
            return
        try:
            while self._take(wire, sock.recv(READ)) and self._secure:
                continue  # TLS may buffer bytes that no poll reports, until it raises "want read"
        except WOULD_BLOCK:
            pass
        except (OSError, ShardCacheError) as error:
            self._handle_loss(error)
            return
        except BaseException:  # such as an error of a signal handler: no fault of the node
            self._abort()
            raise
        self._after_reply()

    def _abort(self) -> None:
        """Close after an interrupt in the middle of a step.

        Bytes may be lost or sent twice, so that replies would reach the wrong calls.
        """
        for call in (*self._queued, *self._sent):
            call.settle(cut_off_error(self._backend.node))
        self._close()

    def _take(self, wire: Wire, data: bytes) -> bool:
        if not data:
            raise ConnectionResetError("closed by the node")
        self._last_used = self._last_received = time.monotonic()
        sent = self._sent
        for reply in wire.feed(data):
            # Settled before it is removed: an interrupt between the two would lose it.
            call = sent[0]
            if isinstance(reply, Exception):
                call.settle(reply)
            elif not call.future.done():  # the text of `settle`, to save the call
                call.future.set_result(reply)
            sent.popleft()
        if not self._answered:
            self._answered = True
            self._backend.record_connected()
        return True

    def _after_reply(self) -> None:
        if not self._sent and not self._queued:
            self._reference.channel = None
            self._finish_drain()
        if self._stalled and not self._has_waiters:
            self._close()

    @property
    def _has_waiters(self) -> bool:
        """Return whether any call still waits for a reply."""
        return any(not call.future.done() for call in (*self._queued, *self._sent))

    def _finish_drain(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        elif self._backend.retired:
            self._close()

    def _watch(self, deadline: float) -> None:
        delay = max(0.0, deadline - time.monotonic())
        timer, former = self.loop.call_later(delay, sweep, self._reference), self._timer
        self._timer, self._timer_at = timer, deadline
        if former is not None:
            former.cancel()  # last: an interrupt before it costs another sweep, after it all timeouts

    def sweep(self) -> None:
        """Settle the calls whose deadline has passed; replace a connection that stalls."""
        timer, self._timer = self._timer, None
        now = time.monotonic()
        try:
            if timer is not None:
                timer.cancel()  # if this sweep is not the timer's, that would be one too many
            self._sweep(now)
        except BaseException:  # such as one of a signal handler: the other calls have deadlines too
            self._watch(now)
            raise

    def _sweep_if_lost(self) -> None:
        """Sweep if the sweep that was due has not run: an interrupt has lost it."""
        if self._timer is not None and self._timer_at < time.monotonic() - OWN_DELAY:
            self.sweep()

    def _sweep(self, now: float) -> None:
        if self._grant_grace(now):
            return
        waiting = (self._queued, self._sent)
        upcoming = [
            *self._expire_urgent(now),
            *(first for calls in waiting for first in self._expire(calls, now)),
        ]
        if self._drained is not None and not upcoming:
            self._finish_drain()
        self._check_stall(now, upcoming)

    def _check_stall(self, now: float, upcoming: Sequence[float]) -> None:
        """Replace this connection if it stalls; otherwise check again when it may.

        A reply that is late while bytes arrive, or because of a larger reply before it, is not a stall.
        """
        times = [*upcoming]
        # An interrupt may have kept queued calls from being sent.
        owed = self._sent or (self._queued if self._sock is not None else ())
        if owed and not self._stalled:
            stalls = max(owed[0].deadline, self._silent_since + self._longest_silence)
            self._stalled = stalls <= now
            if self._stalled:
                self._backend.replace(self)
            else:
                times.append(stalls)
        if self._stalled and not self._has_waiters:
            self._close()
        elif times:
            self._watch(min(times))

    @property
    def _silent_since(self) -> float:
        """Return when the current silence began: the last arrival, or the first command after it."""
        return max(self._last_received, self._asked_at)

    @property
    def _longest_silence(self) -> float:
        return SILENCE * self._backend.options.call_timeout

    def _grant_grace(self, now: float) -> bool:
        """Grant late calls a short grace if this process was delayed; return whether it did.

        So bytes that arrived during the delay are read first. No call gets it twice.
        """
        late = now - self._timer_at
        if late <= OWN_DELAY:
            return False
        waiting = (call for call in (*self._queued, *self._sent) if not call.future.done())
        if not any(self._delayed_until < call.deadline <= now for call in waiting):
            return False
        self._delay, self._delayed_until = late, now
        self._watch(now + min(late, LONGEST_GRACE))
        return True

    def _expire(self, calls: deque[Call], now: float) -> Sequence[float]:
        """Settle the late calls; return the deadline of the first that is not late, if any.

        Calls are in the order of their deadlines, except for the urgent ones.
        """
        for call in calls:
            if call.deadline > now and not call.future.done():
                return (call.deadline,)
            self._settle_late(call)
        return ()

    def _expire_urgent(self, now: float) -> Sequence[float]:
        """Settle the late urgent calls; return the deadline of the next, if any."""
        urgent = self._urgent
        while urgent:
            deadline, _, call = urgent[0]
            if deadline > now and not call.future.done():
                return (deadline,)
            self._settle_late(call)
            heapq.heappop(urgent)
        return ()

    def _settle_late(self, call: Call) -> None:
        if call.future.done():
            return
        reply: Reply = self._partial_reply(call)
        if self._wire is None:  # the dial is late
            reply = ConnectTimeoutError(NOT_REACHED, self._backend.node)
        elif reply is None:
            reply = NodeTimeoutError("did not answer in time", self._backend.node)
        if self._is_excused(call):
            excuse(reply)
        call.settle(reply)

    def _is_excused(self, call: Call) -> bool:
        """Return whether a late reply says nothing about its node: it was sending, or we were delayed."""
        timeout = self._backend.options.call_timeout
        if self._flushing and (not self._asked_at or self._last_used < call.deadline - timeout):
            return True  # it was never sent: an interrupt has lost the callback that sends
        if self._wire is None and (self._dial is None or self._dial.done()):
            return True  # an interrupt has ended the dial before its outcome was known
        if call.deadline <= self._delayed_until and self._delay > timeout / 2:
            return True
        return time.monotonic() - self._last_received < self._longest_silence

    def _partial_reply(self, call: Call) -> Reply:
        """Return the part that has arrived of the current reply if it belongs to this call."""
        if self._wire is None or not self._sent or self._sent[0] is not call:
            return None
        return self._wire.partial_reply()

    def _handle_loss(self, error: Exception) -> None:
        """Close after a lost connection; retry idempotent commands and fail the other calls."""
        if not isinstance(error, (TimeoutError, TooManyConnectionsError)):
            self._backend.target.incarnation.end()
        again = self._answered and isinstance(error, ConnectionError)
        failure = self._error_for(error)
        lost = (*self._sent, *self._queued)
        self._sent, self._queued = deque(), deque()
        try:
            self._close()
            for call in lost:
                if again and self._may_retry(call):
                    call.retried = True
                    self._backend.retried += 1
                    self._backend.submit(call)
                else:
                    call.settle(failure)
        except BaseException:  # no caller waits for ever
            for call in lost:
                call.settle(failure)
            raise

    def _may_retry(self, call: Call) -> bool:
        return not (call.future.done() or call.retried) and type(call.command) in IDEMPOTENT

    def _error_for(self, error: Exception) -> Exception:
        if isinstance(error, TooManyConnectionsError):
            return self._backend.record_refused(self, error)
        if isinstance(error, NodeError):
            return error
        kind = NodeTimeoutError if isinstance(error, TimeoutError) else NodeUnavailableError
        failure = kind(f"lost the connection: {error}", self._backend.node)
        failure.__cause__ = error
        return failure

    def _close(self) -> None:
        self._reference.channel = self._reference.sock = None
        self._backend.forget(self)
        self._urgent.clear()
        # Settled before they are removed: an interrupt between the two would lose them.
        for call in (*self._queued, *self._sent):
            call.settle(NodeUnavailableError("the connection was closed", self._backend.node))
        self._queued, self._sent = deque(), deque()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._wire = None
        sock = self._sock
        if sock is not None:
            # By the stored number: a socket that was closed elsewhere has none.
            self.loop.remove_reader(self._descriptor)
            self._stop_writing()
            self._sock = None  # not before: an interrupt leaves the rest to `__del__`
            sock.close()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def _are_long(chunks: Iterable[bytes | memoryview]) -> bool:
    """Return whether more than one record of TLS may be needed."""
    return sum(map(len, chunks)) > ONE_RECORD


def _send(sock: socket.socket, unsent: deque[bytes | memoryview]) -> None:
    """Send until all is sent or the socket takes no more."""
    while unsent:
        sent = sock.send(unsent[0])
        if sent == len(unsent[0]):
            unsent.popleft()
        else:
            unsent[0] = memoryview(unsent[0])[sent:]
