"""What a protocol without sockets does for a transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shardcache.core.commands import Command, Reply


class Incarnation:
    """In which run its server is, as far as can be told: in another after each lost connection.

    What a server counts begins anew with it, and so do memcached's CAS numbers.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def end(self) -> None:
        """Take note that the server may not be the one it was."""
        self.number += 1


class Wire(Protocol):
    """One connection's conversation without its socket: commands to bytes, bytes to replies.

    Sans-I/O. A wire belongs to one connection and is thrown away with it.
    """

    def hello(self) -> bytes:
        """Return what must be said first on a new connection (`b""`: nothing).

        `greeted` is false until its answer has been fed.
        """

    @property
    def greeted(self) -> bool:
        """Return whether the hello has been answered with yes; `feed` raises when it was a no."""

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command` in order, and expect its reply next.

        Raise a `NodeError` (such as `ValueTooLargeError`) or `UnsupportedError` before anything is
        expected or sent, when the node cannot take it.
        """

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes as they arrive, in fragments of any size; give the replies now complete.

        Replies come in the order of their commands. Raise `NodeProtocolError` on anything that is
        not a legal answer to what is expected; the connection must then be closed.
        """

    @property
    def idle(self) -> bool:
        """Return whether no reply is owed and no byte is left over: a reply boundary."""

    def partial_reply(self) -> Reply:
        """Return what has arrived for the oldest command over many keys, gaps as `NodeTimeoutError`."""
