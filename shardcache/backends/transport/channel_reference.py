"""What an event loop keeps of a channel: a reference that lets a dropped client be collected."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import TYPE_CHECKING

from shardcache.backends.transport.dropped import warn_dropped
from shardcache.backends.transport.loop_steps import unwatch

if TYPE_CHECKING:  # it has a reference to itself
    from shardcache.backends.transport.channel import Channel


class ChannelReference:
    """A loop's reference to a channel: strong while a reply is owed, otherwise weak.

    So a dropped client can be collected. A weak reference alone is not enough: the garbage
    collector clears weak references first and then calls the program's finalizers, which may still
    call the client. `sock` is a strong reference, so that the collector does not close a socket
    that the loop watches.
    """

    __slots__ = ("_channel", "channel", "sock")

    def __init__(self, channel: Channel) -> None:
        self.channel: Channel | None = None
        self.sock: socket.socket | None = None
        self._channel = weakref.ref(channel)

    def get(self) -> Channel | None:
        """Return the channel if it still exists."""
        return self.channel or self._channel()


def read(reference: ChannelReference) -> None:
    """Read what has arrived on a channel, if that still exists."""
    channel = reference.get()
    if channel is not None:
        channel.readable()


def sweep(reference: ChannelReference) -> None:
    """Settle the late calls of a channel, if that still exists."""
    channel = reference.get()
    if channel is not None:
        channel.sweep()


def drop(loop: asyncio.AbstractEventLoop, sock: socket.socket, descriptor: int) -> None:
    """Close the connection of a dropped client, from any thread."""

    def release() -> None:
        unwatch(loop, descriptor)
        sock.close()

    try:
        loop.call_soon_threadsafe(release)
    except RuntimeError:  # the loop has ended, and watches nothing
        sock.close()
        return
    warn_dropped()
