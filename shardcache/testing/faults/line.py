"""One direction of a connection through the proxy."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from shardcache.testing.faults.sockets import CHUNK, FAILED

Flag = Literal["fin", "rst"]  # how TCP ends a connection

MAX_READY: Final = 256 * 1024  # ready bytes for which the sink has no room; more are not read
MAX_DELAYED: Final = 64 * 1024 * 1024  # bytes that are being delayed; more are not read


@dataclass(frozen=True, slots=True)
class Drip:
    """How many bytes pass at a time, and how often."""

    size: int
    every: float  # seconds


class Line:
    """One direction of a connection: the bytes that came in, and when they may go out.

    Bytes are delayed, in order, then are ready. So is the end of a connection, after them.
    """

    __slots__ = (
        "_delayed",
        "_delayed_size",
        "_next_drip",
        "_passed",
        "_ready",
        "_until_cut",
        "dark",
        "delay",
        "delivered",
        "discards",
        "drip",
        "end",
        "ended",
        "reached",
        "stalled",
    )

    def __init__(self) -> None:
        self._delayed: deque[tuple[float, bytes]] = deque()  # empty bytes are the end
        self._delayed_size = 0
        self._ready = bytearray()
        self._next_drip = 0.0
        self._until_cut: int | None = None
        self._passed = False  # whether a byte has passed since the cut was armed
        self.delay = 0.0
        self.drip: Drip | None = None  # set by `set_drip`
        self.dark = False
        self.stalled = False
        self.discards = False
        self.ended = False  # nothing more comes in
        self.end: Flag = "fin"
        self.reached = False  # the end has come through the delay
        self.delivered = False  # the other side has been told of the end

    @property
    def flows(self) -> bool:
        """Return whether anything may pass at all."""
        return not self.dark and not self.stalled

    @property
    def wants(self) -> bool:
        """Return whether more should be read."""
        return not self.ended and len(self._ready) < MAX_READY and self._delayed_size < MAX_DELAYED

    def put(self, data: bytes, now: float) -> None:
        """Add bytes that were read; empty bytes are the end."""
        self.ended = not data
        if not self.discards or self.ended:
            self._delayed.append((now + self.delay, data))
            self._delayed_size += len(data)

    def reset(self, now: float) -> None:
        """Add the end of a connection that was reset."""
        self.end = "rst"
        self.put(b"", now)

    def allowance(self, now: float) -> int:
        """Return how many bytes may pass now."""
        if not self.flows:
            return 0
        self._release(now)
        size = min(len(self._ready), CHUNK)
        if self.drip is not None:
            size = 0 if now < self._next_drip else min(size, self.drip.size)
        return size if self._until_cut is None else min(size, self._until_cut)

    def may_move(self, now: float) -> bool:
        """Return whether bytes or the end may pass now, or the cut is reached."""
        return self.flows and (self.allowance(now) > 0 or self.cut or self.over)

    def peek(self, size: int) -> bytearray:
        """Return the next `size` bytes."""
        return self._ready[:size]

    def take(self, size: int, now: float) -> None:
        """Remove bytes that have passed."""
        del self._ready[:size]
        self._passed = True
        if self.drip is not None:
            self._next_drip = now + self.drip.every
        if self._until_cut is not None:
            self._until_cut -= size

    def set_drip(self, drip: Drip | None) -> None:
        """Pass bytes in drops from now on, the first at once."""
        self.drip, self._next_drip = drip, 0.0

    def arm(self, size: int | None) -> None:
        """Cut after `size` more bytes; `None` never cuts."""
        self._until_cut, self._passed = size, False

    @property
    def cut(self) -> bool:
        """Return whether the cut is reached."""
        return self._until_cut == 0 and (self._passed or (self.flows and bool(self._ready)))

    @property
    def over(self) -> bool:
        """Return whether all bytes have passed, and the end has to be passed on."""
        return self.flows and self.reached and not self._ready and not self.delivered

    def discard(self) -> None:
        """Drop all bytes that wait or come later."""
        self.discards = True
        self._release(math.inf)
        self._ready.clear()

    def heal(self) -> None:
        """Let everything pass; bytes that wait pass at once."""
        self.delay, self.drip, self.dark, self.stalled = 0.0, None, False, False
        self.arm(None)
        self._release(math.inf)

    def next_time(self, now: float) -> float:
        """Return when waiting bytes may pass; infinity if time alone does not let them."""
        if not self.flows:
            return math.inf
        flying = self._delayed[0][0] if self._delayed else math.inf
        dripping = self._next_drip if self._ready and self._next_drip > now else math.inf
        return min(flying, dripping)

    def _release(self, now: float) -> None:
        # In order, also when the delay has become shorter.
        while self._delayed and self._delayed[0][0] <= now:
            _, data = self._delayed.popleft()
            self._delayed_size -= len(data)
            self._ready += data
            self.reached = not data


def read(source: socket.socket, line: Line, events: int) -> bool:
    """Read what has arrived; return `False` when the connection failed after its end was read."""
    failed = bool(events & FAILED)
    if line.ended:
        return not failed
    if line.wants or failed:
        try:
            line.put(source.recv(CHUNK), time.monotonic())
        except BlockingIOError:
            pass
        except OSError:
            line.reset(time.monotonic())
    return True


def send(line: Line, sink: socket.socket) -> Iterator[int]:
    """Send the bytes that may pass now; yield how many the kernel took each time."""
    while size := line.allowance(time.monotonic()):
        try:
            size_sent = sink.send(line.peek(size))
        except BlockingIOError:
            return
        line.take(size_sent, time.monotonic())
        yield size_sent
