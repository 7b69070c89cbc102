"""One node for asyncio: one multiplexed connection for each event loop, over any wire."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Sequence

from shardcache.backends.base import BackendOptions
from shardcache.backends.transport.calls import Call, Waiter
from shardcache.backends.transport.channel import Channel
from shardcache.backends.transport.dial import Target
from shardcache.backends.transport.limits import DialLimit
from shardcache.core.commands import Command, Reply
from shardcache.core.pools import PoolUse
from shardcache.errors import NodeError, NodeUnavailableError, PoolTimeoutError
from shardcache.log import log


class MultiplexedBackend:
    """One node over one connection for each event loop.

    All calls of one turn of the loop leave in one write, and replies are matched in order. A
    cancelled or late call discards only its own reply. A connection that stalls is replaced, and
    stays open until no call waits on it.

    `retried` counts commands sent again because a connection turned out dead, `dialed` counts new
    connections. `refused_connections` counts those that the server refused while others were open:
    of other loops, or stalled ones.
    """

    def __init_subclass__(cls) -> None:
        """Send nothing past the `execute` of a subclass."""
        if "execute" in vars(cls) and "send_for" not in vars(cls):
            cls.send_for = None  # type: ignore[assignment]  # as a backend without it

    def __init__(self, target: Target, options: BackendOptions) -> None:
        self.target = target
        self.supports = target.supports
        self.whole_seconds = target.whole_seconds
        self.node = target.node.name
        self.options = options
        self.retired = False
        self.retried = 0
        self.dialed = 0
        self.refused_connections = 0
        self._limit = DialLimit()
        self._count_lock = threading.RLock()  # loops may run in several threads
        self._channels: dict[asyncio.AbstractEventLoop, Channel] = {}
        self._stalled: set[Channel] = set()  # replaced, but calls still wait on them
        _backends.add(self)

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Send `command` in this turn of the loop; return a future of the reply."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        call = Call(command, deadline, future)
        channel = self._channels.get(loop)
        if channel is None:
            self.submit(call)
        else:
            channel.submit(call)
        return future

    def send_for(self, waiter: Waiter, command: Command, deadline: float) -> None:
        """Send `command` in this turn of the loop, as `execute` does; the reply is for `waiter`."""
        self.submit(Call(command, deadline, waiter))

    def submit(self, call: Call) -> None:
        """Send a call over its loop's connection; open one if there is none."""
        loop = call.future.get_loop()
        channel = self._channels.get(loop) or self._open(loop)
        if channel is None:
            call.settle(self._no_room_error())
        else:
            channel.submit(call)

    @property
    def pool_use(self) -> PoolUse:
        """Return how many connections are open, and how many of them wait for replies."""
        channels = (*self._channels.values(), *self._stalled)
        number = sum(channel.connected for channel in channels)
        return PoolUse(number, sum(channel.busy for channel in channels))

    def eject(self) -> None:
        """Close the connections of every loop and fail their calls; called from any thread.

        The running loop does so at once, any other loop in its next turn.
        """
        running = _running_loop()
        latest = time.monotonic() + self.options.call_timeout
        for channel in (*self._channels.values(), *self._stalled):
            if channel.loop is running:
                channel.abandon(self._ejection_error())
                continue
            with contextlib.suppress(
                RuntimeError
            ):  # the loop has ended: `_drop_closed_loops` closes the socket
                channel.loop.call_soon_threadsafe(
                    _eject, weakref.ref(channel), latest, self._ejection_error()
                )

    def _ejection_error(self) -> NodeError:
        return NodeUnavailableError("was ejected", self.node)

    async def aclose(self) -> None:
        """Close this loop's connections once their calls in flight are answered or late.

        Other loops close theirs in their next turn, or after the last reply.
        """
        self.retired = True
        running = asyncio.get_running_loop()
        for channel in (*self._channels.values(), *self._stalled):
            if channel.loop is not running:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    channel.loop.call_soon_threadsafe(_retire, weakref.ref(channel))
        await asyncio.gather(*(channel.drain() for channel in self._of_loop(running)))
        self._drop_closed_loops()

    def replace(self, channel: Channel) -> None:
        """Send nothing more over a channel that stalls; the next call opens another."""
        if self._channels.get(channel.loop) is channel:
            del self._channels[channel.loop]
            self._stalled.add(channel)

    def record_connected(self) -> None:
        """Record that the server has answered on a new connection."""
        with self._count_lock:
            self._limit.record_success()

    def record_refused(self, channel: Channel, error: NodeError) -> NodeError:
        """Record that the server refused a connection; return the error for its callers.

        While other connections are open the server works. Further ones are then dialed one at a
        time, with pauses.
        """
        number = self._count_open_besides(channel)
        if not number:
            return error
        with self._count_lock:
            self.refused_connections += 1
            first = self._limit.record_refusal(time.monotonic())
        if first:
            log.warning(
                "%s takes no more connections: continuing with the %d that are open",
                self.node,
                number,
            )
        return self._no_room_error()

    def forget(self, channel: Channel) -> None:
        """Drop a channel that is closed."""
        self._stalled.discard(channel)
        if self._channels.get(channel.loop) is channel:
            self._channels.pop(channel.loop, None)

    def abandon_all(self) -> None:
        """Close every socket and settle no call: the loops belong to the parent process."""
        for channel in (*self._channels.values(), *self._stalled):
            channel.sever()
        self._channels.clear()
        self._stalled.clear()
        self._limit = DialLimit()
        self._count_lock = threading.RLock()  # a thread of the parent may hold the old one

    def _of_loop(self, loop: asyncio.AbstractEventLoop) -> Sequence[Channel]:
        channels = (*self._channels.values(), *self._stalled)
        return [channel for channel in channels if channel.loop is loop]

    def _open(self, loop: asyncio.AbstractEventLoop) -> Channel | None:
        """Open a connection for a loop; return `None` while none may be dialed."""
        self._drop_closed_loops()
        with self._count_lock:
            may_dial = self._limit.may_dial(time.monotonic())
        if not may_dial and self._count_open_besides(None):
            return None
        self._channels[loop] = channel = Channel(self, loop)
        return channel

    def _count_open_besides(self, channel: Channel | None) -> int:
        others = (*self._channels.values(), *self._stalled)
        return sum(other.connected for other in others if other is not channel)

    def _no_room_error(self) -> NodeError:
        text = "takes no more connections, and this event loop has none"
        return PoolTimeoutError(text, self.node)

    def _drop_closed_loops(self) -> None:
        """Close the connections of loops that ended without closing the client."""
        for channel in (*self._channels.values(), *self._stalled):
            if channel.loop.is_closed():
                channel.sever()
                self.forget(channel)


def _eject(channel: weakref.ref[Channel], latest: float, error: NodeError) -> None:
    target = channel()
    if target is not None:
        target.eject(latest, error)


def _retire(channel: weakref.ref[Channel]) -> None:
    target = channel()
    if target is not None:
        target.retire()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_backends: weakref.WeakSet[MultiplexedBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_backends):
        backend.abandon_all()


os.register_at_fork(after_in_child=_after_fork)
