"""The connections through a proxy, and the faults applied to them."""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from shardcache.testing.faults.line import Drip, Flag, Line, read, send
from shardcache.testing.faults.listener import Dials, Listener
from shardcache.testing.faults.sockets import (
    SocketAddress,
    close,
    has_unsent,
    is_connected,
    prepare,
    reset,
    shut,
)
from shardcache.testing.faults.tunnel import Direction, Tunnel, directions

Ending = Literal["rst", "fin", "stall"]


@dataclass(slots=True)
class Cut:
    """A cut of replies: after how many bytes, how, and on how many connections."""

    size: int
    how: Ending
    left: int | None  # connections still to be cut; none for all


@dataclass(slots=True)
class Faults:
    """The present faults; new connections start with them."""

    delays: dict[Direction, float] = field(default_factory=dict)
    drips: dict[Direction, Drip] = field(default_factory=dict)
    cut: Cut | None = None
    dark: bool = False
    half_open: bool = False


class Network:
    """All connections between clients and the server, and the faults applied to them.

    Only the relay's thread touches it.
    """

    def __init__(
        self,
        addresses: tuple[SocketAddress, ...],
        socket_type: type[socket.socket],
        poll: select.poll,
    ) -> None:
        self.accepted = self.sent = self.received = 0
        self._addresses = addresses
        self._socket_type = socket_type
        self._poll = poll
        self._faults = Faults()
        self._tunnels: set[Tunnel] = set()
        self._watched: dict[int, Tunnel] = {}
        self._timers: dict[Tunnel, float] = {}
        self._listener = Listener(socket_type, poll)
        self.port = self._listener.port

    @property
    def open(self) -> int:
        """Return how many connections are open."""
        return sum(tunnel.open for tunnel in self._tunnels)

    # Faults.

    def delay(self, seconds: float, direction: Direction) -> None:
        """Delay bytes that come in from now on."""
        for one in directions(direction):
            self._faults.delays[one] = seconds
        self._set_all(direction, lambda line: setattr(line, "delay", seconds))

    def drip(self, drip: Drip, direction: Direction) -> None:
        """Pass waiting bytes in drops."""
        for one in directions(direction):
            self._faults.drips[one] = drip
        self._set_all(direction, lambda line: line.set_drip(drip))

    def arm(self, cut: Cut | None) -> None:
        """Cut connections after a number of bytes of replies."""
        self._faults.cut = cut
        size = None if cut is None else cut.size
        self._set_all("replies", lambda line: line.arm(size))

    def blackhole(self, *, dials: bool) -> None:
        """Hold back everything."""
        self._faults.dark = True
        self._set_all("both", lambda line: setattr(line, "dark", True))
        if dials:
            self.set_dials("unanswered")

    def half_open(self) -> None:
        """Lose the server of each connection, and of new ones."""
        self._faults.half_open = True
        for tunnel in list(self._tunnels):
            self._orphan(tunnel)

    def set_dials(self, dials: Dials) -> None:
        """Treat dials like this from now on."""
        self._listener.set_dials(dials)
        if self._listener.listens:
            self._accept()

    def heal(self) -> None:
        """Let everything pass again; reset connections that have lost their server."""
        self._faults = Faults()
        self.set_dials("taken")
        for tunnel in list(self._tunnels):
            if tunnel.orphaned:
                self._end(tunnel, "rst")
        self._set_all("both", Line.heal)
        for tunnel in list(self._tunnels):
            if tunnel.server is None and tunnel.ending is None:
                self._connect(tunnel)

    def _set_all(self, direction: Direction, change: Callable[[Line], None]) -> None:
        for tunnel in list(self._tunnels):
            for line in tunnel.lines(direction):
                change(line)
            self._advance(tunnel)

    # What the loop calls.

    def next_time(self) -> float:
        """Return when there is something to do even without an event."""
        return min([self._listener.opens_again, *self._timers.values()])

    def handle(self, number: int, events: int) -> None:
        """Handle the events of a socket."""
        if number == self._listener.number:
            self._accept()
        elif tunnel := self._watched.get(number):
            self._handle_events(tunnel, number, events)

    def run_due(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        if now >= self._listener.opens_again:
            self._listener.watch()
        for tunnel in [tunnel for tunnel, when in self._timers.items() if when <= now]:
            self._advance(tunnel)

    def close_sockets(self, end: Callable[[socket.socket], None]) -> None:
        """End every connection, and accept no more."""
        for tunnel in list(self._tunnels):
            self._tunnels.discard(tunnel)
            end(tunnel.client)
            if tunnel.server is not None:
                end(tunnel.server)
        self._listener.close()

    # New connections.

    def _accept(self) -> None:
        for client in self._listener.accept():
            self.accepted += 1
            if self._listener.dials == "rst":
                reset(client)
            else:
                self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        prepare(client)
        tunnel = Tunnel(client, self._addresses)
        self._tunnels.add(tunnel)
        self._apply_faults(tunnel)
        if self._faults.half_open:
            self._orphan(tunnel)
        elif self._faults.dark:
            self._set_wait(tunnel)
        else:
            self._connect(tunnel)

    def _apply_faults(self, tunnel: Tunnel) -> None:
        """Apply the present faults to a new connection."""
        faults = self._faults
        for one in directions("both"):
            for line in tunnel.lines(one):
                line.delay = faults.delays.get(one, 0.0)
                line.set_drip(faults.drips.get(one))
                line.dark = faults.dark
        if faults.cut is not None:
            tunnel.replies.arm(faults.cut.size)

    def _connect(self, tunnel: Tunnel) -> None:
        """Dial the server at its next address; reset the client when there is none."""
        for family, place in tunnel.addresses:
            try:
                server = self._socket_type(family, socket.SOCK_STREAM)
            except OSError:
                break
            server.settimeout(0)
            tunnel.server = server
            if server.connect_ex(place) in (0, errno.EINPROGRESS):
                self._advance(tunnel)
                return
            self._lose_server(tunnel)
        self._end(tunnel, "rst")

    # One connection.

    def _handle_events(self, tunnel: Tunnel, number: int, events: int) -> None:
        if number == tunnel.client.fileno():
            if not read(tunnel.client, tunnel.requests, events):
                self._end(tunnel, "rst")
        elif tunnel.server is not None and not tunnel.connected:
            self._note_connected(tunnel, tunnel.server)
        elif tunnel.server is not None and not read(tunnel.server, tunnel.replies, events):
            self._note_lost_server(tunnel)
        self._advance(tunnel)

    def _note_connected(self, tunnel: Tunnel, server: socket.socket) -> None:
        """Mark the connection as connected, or try the next address if the dial failed."""
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lose_server(tunnel)
            self._connect(tunnel)
            return
        if not is_connected(server):
            return
        if server.family != socket.AF_UNIX:
            prepare(server)
        tunnel.connected = True

    def _advance(self, tunnel: Tunnel) -> None:
        """Pass the bytes that may pass now, then set what to wait for."""
        if tunnel not in self._tunnels:
            return
        if tunnel.ending is not None:
            self._try_end(tunnel, tunnel.ending)
        elif not tunnel.orphaned:
            self._pass_requests(tunnel)
            self._pass_replies(tunnel)
        if tunnel.requests.delivered and tunnel.replies.delivered:
            self._forget(tunnel, close)
        self._set_wait(tunnel)

    def _pass_requests(self, tunnel: Tunnel) -> None:
        line, server = tunnel.requests, tunnel.server
        if server is None or not tunnel.connected:
            return
        try:
            for size in send(line, server):
                self.sent += size
        except OSError:
            self._note_lost_server(tunnel)
            return
        if line.over and line.end == "rst":
            self._forget(tunnel, reset)
        elif line.over:
            shut(server)
            line.delivered = True

    def _note_lost_server(self, tunnel: Tunnel) -> None:
        """Pass no more to the server; replies that it sent before still pass, then a reset."""
        if tunnel.replies.delivered:
            self._end(tunnel, "rst")
        else:
            tunnel.requests.discard()
            tunnel.requests.delivered = True
            tunnel.replies.end = "rst"

    def _pass_replies(self, tunnel: Tunnel) -> None:
        line = tunnel.replies
        if tunnel.ending is not None or tunnel not in self._tunnels:
            return
        try:
            for size in send(line, tunnel.client):
                self.received += size
        except OSError:
            self._forget(tunnel, reset)
            return
        if line.cut:
            self._cut(tunnel)
        elif line.over and line.end == "rst":
            self._end(tunnel, "rst")
        elif line.over:
            shut(tunnel.client)
            line.delivered = True

    def _cut(self, tunnel: Tunnel) -> None:
        cut = self._faults.cut
        tunnel.replies.arm(None)
        if cut is None:
            return
        if cut.how == "stall":
            tunnel.replies.stalled = True
        else:
            self._end(tunnel, cut.how)
        if cut.left is not None:
            cut.left -= 1
            if cut.left == 0:
                self.arm(None)

    def _orphan(self, tunnel: Tunnel) -> None:
        if tunnel.ending is None:
            tunnel.orphaned = True
            tunnel.requests.discard()
            tunnel.replies.stalled = True
            self._lose_server(tunnel)
            self._set_wait(tunnel)

    def _end(self, tunnel: Tunnel, how: Flag) -> None:
        """End a connection from this side, once all passed bytes are sent."""
        if tunnel.ending is None and tunnel in self._tunnels:
            tunnel.ending = how
            self._lose_server(tunnel)
            self._try_end(tunnel, how)
            self._set_wait(tunnel)

    def _try_end(self, tunnel: Tunnel, how: Flag) -> None:
        # A reset drops bytes that the kernel has not sent yet: fewer would arrive than should.
        if not has_unsent(tunnel.client):
            self._forget(tunnel, reset if how == "rst" else close)

    def _lose_server(self, tunnel: Tunnel) -> None:
        if tunnel.server is not None:
            self._watch(tunnel, tunnel.server, None)
            reset(tunnel.server)
            tunnel.server, tunnel.connected = None, False

    def _forget(self, tunnel: Tunnel, end: Callable[[socket.socket], None]) -> None:
        self._tunnels.discard(tunnel)
        self._timers.pop(tunnel, None)
        for one in (tunnel.client, tunnel.server):
            if one is not None:
                self._watch(tunnel, one, None)
                end(one)

    def _set_wait(self, tunnel: Tunnel) -> None:
        """Poll and time a connection for its next step."""
        if tunnel not in self._tunnels:
            return
        now = time.monotonic()  # one moment for all: now is polled, later is timed
        self._watch(tunnel, tunnel.client, tunnel.client_events(now))
        if tunnel.server is not None:
            self._watch(tunnel, tunnel.server, tunnel.server_events(now))
        when = tunnel.next_time(now)
        if when == math.inf:
            self._timers.pop(tunnel, None)
        else:
            self._timers[tunnel] = when

    def _watch(self, tunnel: Tunnel, one: socket.socket, events: int | None) -> None:
        number = one.fileno()
        if events is not None:
            self._watched[number] = tunnel
            self._poll.register(number, events)
        elif self._watched.pop(number, None) is not None:
            self._poll.unregister(number)
