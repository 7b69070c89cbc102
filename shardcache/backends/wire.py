"""A protocol without sockets, for backends that use the transports of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from shardcache.core.commands import Command, Reply

# In place of a reply that is not of the usual kind.
UNUSUAL: Final[Reply] = object()


class Incarnation:
    """Counts server incarnations. A lost connection starts a new one: the server may have restarted.

    A restarted server begins its counts again, and so its CAS numbers.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def end(self) -> None:
        """Start a new incarnation."""
        self.number += 1


class Wire(Protocol):
    """The conversation of one connection without its socket: commands to bytes, bytes to replies.

    Sans-I/O. A wire belongs to one connection and is thrown away with it. `transport.blocking` and
    `transport.asyncio` do the rest: dialing, pooling, deadlines, retries.
    """

    def hello(self) -> bytes:
        """Return the first bytes for a new connection; `b""` for none.

        `greeted` is false until `feed` has taken the answer.
        """

    @property
    def greeted(self) -> bool:
        """Return whether the server has accepted the hello; `feed` raises if it refuses."""

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command` in order, and expect its reply.

        Raise `UnsupportedError` for a command of another capability, or a `NodeError` such as
        `ValueTooLargeError` if the node cannot take it. Nothing is sent or expected then.
        """

    def encode_gets(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return the bytes of a `Get` of each key, and expect their replies. There is no error to raise."""

    def feed(self, data: bytes) -> list[Reply]:
        """Accept bytes in fragments of any size; return the replies that are now complete.

        Replies are in the order of their commands. Raise `NodeProtocolError` on anything that is not
        a legal reply to an expected command; the connection must then be closed.
        """

    @property
    def idle(self) -> bool:
        """Return whether the connection is at a reply boundary: no reply owed, no byte left over."""

    def partial_reply(self) -> Reply:
        """Return what has arrived for the oldest command, with a `NodeTimeoutError` in each gap."""


class StraightWire(Wire, Protocol):
    """A wire with a shorter way for the most frequent exchange: a `Get` alone on its connection.

    The bytes are those of `encode`, and the replies those of `feed`.
    """

    def start_get(self, key: bytes) -> bytes | None:
        """Return the request, or `None` if `encode` must make it; the wire is idle, and stays so."""

    def end_get(self, data: bytes) -> Reply:
        """Return the reply if `data` is exactly that and of the usual kind, else `UNUSUAL`."""

    def expect_get(self) -> None:
        """Expect the reply to the last request, as after `encode`: `feed` reads it from its start."""


class StraightWrites(Wire, Protocol):
    """A wire with a shorter way for small writes alone on their connection: it keeps no reply to expect.

    The bytes are those of `encode`, and the replies those of `feed`.
    """

    def start(self, command: Command) -> bytes | None:
        """Return the request, or `None` if `encode` must make it; the wire is idle, and stays so."""

    def end(self, data: bytes) -> Reply:
        """Return the reply if `data` is exactly that and of the usual kind, else `UNUSUAL`."""

    def expect(self) -> None:
        """Expect the reply to the last request, as after `encode`: `feed` reads it from its start."""


class RoomyWire(Wire, Protocol):
    """A wire that has a place for the rest of a large value, so that it is not copied once more."""

    def room(self) -> memoryview | None:
        """Return where a socket may write bytes of the reply, if a large value is arriving.

        Release it, then `take` what was written.
        """

    def take(self, count: int) -> list[Reply]:
        """Do what `feed` does for bytes that a socket has written into `room`."""
