"""A connection from a client through the proxy to the server."""

from __future__ import annotations

import math
import socket
from typing import Literal, assert_never

from shardcache.testing.faults.line import Flag, Line
from shardcache.testing.faults.sockets import READABLE, RETRY_SECONDS, WRITABLE, SocketAddress

Direction = Literal["both", "requests", "replies"]


def directions(direction: Direction) -> tuple[Direction, ...]:
    """Return the single directions of `direction`."""
    return ("requests", "replies") if direction == "both" else (direction,)


class Tunnel:
    """A connection from a client, and the one to the server that continues it."""

    __slots__ = (
        "addresses",
        "client",
        "connected",
        "ending",
        "orphaned",
        "replies",
        "requests",
        "server",
    )

    def __init__(self, client: socket.socket, addresses: tuple[SocketAddress, ...]) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.addresses = iter(addresses)  # not tried yet
        self.connected = False
        self.requests = Line()
        self.replies = Line()
        self.orphaned = False  # its server was lost silently
        self.ending: Flag | None = None  # how to end the client's side once all is sent

    @property
    def open(self) -> bool:
        """Return whether neither the client nor a fault has closed it."""
        return not self.requests.ended and self.ending is None

    def lines(self, direction: Direction) -> tuple[Line, ...]:
        """Return the line of a direction."""
        match direction:
            case "both":
                return self.requests, self.replies
            case "requests":
                return (self.requests,)
            case "replies":
                return (self.replies,)
            case _:
                assert_never(direction)

    def next_time(self, now: float) -> float:
        """Return when to continue without an event."""
        if self.ending is not None:
            return now + RETRY_SECONDS
        if self.orphaned:
            return math.inf
        requests = self.requests.next_time(now) if self.connected else math.inf
        return min(requests, self.replies.next_time(now))

    def client_events(self, now: float) -> int | None:
        """Return what to poll the client's socket for; `None` not to poll it at all."""
        if self.ending is not None:
            return None
        return self._events(self.requests, self.replies, now)

    def server_events(self, now: float) -> int | None:
        """Return what to poll the server's socket for; `None` not to poll it at all."""
        return self._events(self.replies, self.requests, now) if self.connected else WRITABLE

    def _events(self, read: Line, written: Line, now: float) -> int | None:
        events = (READABLE if read.wants else 0) | (WRITABLE if written.may_move(now) else 0)
        # A socket that is closed both ways, or whose failure must not be passed on yet, would be
        # reported repeatedly.
        idle = (read.ended and written.delivered) or not (read.flows and written.flows)
        return None if not events and (idle or self.orphaned) else events
