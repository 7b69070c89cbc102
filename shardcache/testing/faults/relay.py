"""The event loop of a proxy, in its thread."""

from __future__ import annotations

import io
import math
import os
import select
import socket
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shardcache.testing.faults.native import native
from shardcache.testing.faults.network import Network
from shardcache.testing.faults.sockets import CHUNK, READABLE, SocketAddress, close

T = TypeVar("T")


class EndedError(Exception):
    """The relay's thread has ended."""


@dataclass(frozen=True, slots=True)
class Order:
    """A function for the relay's thread to call, and the queue for its outcome."""

    act: Callable[[], Any]  # of whatever type the caller wants
    outcome: Any  # a SimpleQueue as it was before gevent replaced it

    def carry_out(self) -> None:
        """Call the function, and put its result or error into the queue."""
        try:
            result = self.act()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self.outcome.put((None, error))
        else:
            self.outcome.put((result, None))

    def reject(self) -> None:
        """Tell the caller that the relay has ended."""
        self.outcome.put((None, EndedError()))


class Relay:
    """The event loop of a proxy, in its thread.

    Only that thread touches the network. Other threads give it orders (`ask`) and wait.

    It polls instead of using asyncio, which under gevent would run in the test's thread and replace its
    loop. Everything it uses is as it was before gevent replaced it.
    """

    def __init__(self, addresses: tuple[SocketAddress, ...]) -> None:
        self._orders: deque[Order] = deque()
        self._stopping = self._ended = False
        self._socket_type: type[socket.socket] = native("socket", "socket")
        self._queue: Callable[[], Any] = native("queue", "SimpleQueue")
        self._lock = native("_thread", "RLock")()
        self._poll: select.poll = native("select", "poll")()
        self._finished = self._queue()
        self.network = Network(addresses, self._socket_type, self._poll)
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self._wakeup, self._waker = io.FileIO(read), io.FileIO(write, "w")
        self._poll.register(self._wakeup, READABLE)
        _relays.add(self)
        native("_thread", "start_new_thread")(self._run, ())

    # For other threads.

    def ask(self, act: Callable[[], T]) -> T:
        """Call `act` in the relay's thread; return or raise what it does."""
        order = Order(act, self._queue())
        self._orders.append(order)
        if self._ended:  # perhaps after its last look at the orders
            raise EndedError
        self._wake()
        result, error = order.outcome.get()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what `act` returned

    def stop(self) -> None:
        """End the thread soon."""
        self._stopping = True
        if not self._ended:  # as it is in a forked child, where the lock may be held for ever
            self._wake()

    def join(self) -> None:
        """Return when the thread has closed everything."""
        self._finished.put(self._finished.get())  # for the next caller, too

    def close_inherited(self) -> None:
        """In a forked child, close the parent's sockets without shutting them down: the parent goes on."""
        self._ended = True
        self._close_sockets(self._socket_type.close)

    def _wake(self) -> None:
        # Without the lock, a descriptor that is being closed may already belong to another file.
        with self._lock:
            if not self._waker.closed:
                self._waker.write(b"!")

    # The loop.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            with self._lock:
                self._close_sockets(close)
            self._ended = True
            for order in self._take_orders():
                order.reject()
            self._finished.put(None)

    def _turn(self) -> None:
        patience = self.network.next_time() - time.monotonic()
        if self._poll_once(patience):
            orders = self._take_orders()
            self._poll_once(0)  # events from before the orders
            for order in orders:
                order.carry_out()
        self.network.run_due()

    def _poll_once(self, patience: float) -> bool:
        """Handle socket events; return whether there are orders."""
        milliseconds = None if patience == math.inf else max(0, math.ceil(patience * 1000))
        ordered = False
        for number, events in self._poll.poll(milliseconds):
            if number == self._wakeup.fileno():
                ordered = True
                self._wakeup.read(CHUNK)
            else:
                self.network.handle(number, events)
        return ordered

    def _take_orders(self) -> list[Order]:
        return [self._orders.popleft() for _ in range(len(self._orders))]

    def _close_sockets(self, end: Callable[[socket.socket], None]) -> None:
        self.network.close_sockets(end)
        self._wakeup.close()
        self._waker.close()


_relays: weakref.WeakSet[Relay] = weakref.WeakSet()


def _after_fork() -> None:
    for relay in list(_relays):
        relay.close_inherited()


os.register_at_fork(after_in_child=_after_fork)
