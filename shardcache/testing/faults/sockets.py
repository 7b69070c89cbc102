"""What the proxy does to a single socket, whichever side it is on."""

from __future__ import annotations

import select
import socket
import struct
import sys
from contextlib import suppress
from fcntl import ioctl
from typing import Any, Final

# A family, and what `connect` takes in it.
SocketAddress = tuple[int, Any]

CHUNK: Final = 256 * 1024  # bytes read or sent at once

# Until a full send buffer, or a lack of descriptors, is looked at again.
RETRY_SECONDS: Final = 0.005

# Linux: how many bytes a socket has not sent yet. Python has no name for it.
SIOCOUTQNSD: Final = 0x894B
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST

READABLE: Final = select.POLLIN
WRITABLE: Final = select.POLLOUT
FAILED: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


def prepare(one: socket.socket) -> None:
    """Have it neither block nor collect what is sent."""
    one.settimeout(0)
    # What drips leaves at once, instead of waiting for more.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def is_connected(one: socket.socket) -> bool:
    """Return whether its dial has been answered."""
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def has_unsent(one: socket.socket) -> bool:
    """Return whether the kernel still has to send some of what we passed (known on Linux alone)."""
    if sys.platform != "linux" or one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False
    (size,) = struct.unpack("i", ioctl(one, SIOCOUTQNSD, bytes(4)))
    return bool(size)


def reset(one: socket.socket) -> None:
    """Close with RST."""
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    one.close()


def shut(one: socket.socket) -> None:
    """Send FIN."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_WR)


def close(one: socket.socket) -> None:
    """Close with FIN: the kernel would send RST if it held bytes that nobody read."""
    shut(one)
    with suppress(OSError):
        while one.recv(CHUNK):
            pass
    one.close()
