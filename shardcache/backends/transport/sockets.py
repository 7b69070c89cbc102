"""What both transports know of sockets."""

from __future__ import annotations

import ssl
from collections import deque
from typing import Final

FIRST_READ: Final = 16 * 1024  # bytes; most replies are smaller, and a large buffer costs time
LARGE_READ: Final = 120 * 1024  # bytes; the same for a connection whose last reply was larger
READ: Final = 64 * 1024  # bytes; from 128 KiB on the C library maps and unmaps pages for each read
LARGE: Final = 16 * 1024  # bytes of a value that are worth not being copied once more
# A command of at most this many bytes fits into every socket's buffers, so it can be sent before its
# reply is read. For a longer one sending and reading alternate, or both sides could wait for ever.
SMALL: Final = 16 * 1024
WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# After this long idle a connection is checked before use: the server may have closed it. In a busy
# loop the check would cost 1 µs of a 20 µs round trip and find nothing.
RESTED: Final = 0.05  # seconds

# Bytes that are sent over TLS as one record; memcached's buffer takes 16 KiB, as does the longest record.
ONE_RECORD: Final = 8 * 1024


def part_last_byte(unsent: deque[memoryview] | deque[bytes | memoryview]) -> None:
    """Have the last byte of more than `ONE_RECORD` sent alone, and so in its own record.

    memcached (1.6.18 at least) reads the end of a value out of its TLS library, then waits until its
    socket can be read. Commands that came in the same record stay in the library: of 30 values of 1 KB
    in one write it stored 17. A byte that is still in the socket makes it go on to the end.
    """
    if len(unsent[-1]) > 1:
        last = memoryview(unsent.pop())
        unsent.extend((last[:-1], last[-1:]))
