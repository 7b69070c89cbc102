"""What the proxy does to a single socket, on either side."""

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

# Seconds until a full send buffer, or a lack of descriptors, is checked again.
RETRY_SECONDS: Final = 0.005

# Linux: how many bytes a socket has not sent yet. Python has no name for it.
SIOCOUTQNSD: Final = 0x894B
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST

READABLE: Final = select.POLLIN
WRITABLE: Final = select.POLLOUT
FAILED: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


def prepare(one: socket.socket) -> None:
    """Make a socket non-blocking, and let it send small pieces at once."""
    one.settimeout(0)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def is_connected(one: socket.socket) -> bool:
    """Return whether its dial was answered."""
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def has_unsent(one: socket.socket) -> bool:
    """Return whether the kernel has unsent bytes (known on Linux only)."""
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
    """Close with FIN: the kernel would send RST if there were unread bytes."""
    shut(one)
    with suppress(OSError):
        while one.recv(CHUNK):
            pass
    one.close()
