"""Plain sockets that speak through a proxy."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

PROMPT = 30.0  # seconds that a busy machine may take for what is done at once
SILENCE = 0.2  # seconds without a byte that count as silence
ASK = {"memcached": b"version\r\n", "redis": b"PING\r\n"}
BIG = random.Random(7).randbytes(1_000_000)
SET_BIG = b"set big 0 0 %d\r\n%s\r\n" % (len(BIG), BIG)
BIG_REPLY = b"VALUE big 0 %d\r\n%s\r\nEND\r\n" % (len(BIG), BIG)


def read(connection, size):
    """Return the next `size` bytes."""
    data = bytearray()
    while len(data) < size:
        some = connection.recv(size - len(data))
        assert some, f"closed after {len(data)} of {size} bytes"
        data += some
    return bytes(data)


def read_all(connection):
    """Return what comes until the end, and how it ends."""
    data = bytearray()
    try:
        while some := connection.recv(1 << 20):
            data += some
    except ConnectionResetError:
        return bytes(data), "rst"
    except TimeoutError:
        return bytes(data), "stall"
    return bytes(data), "fin"


def assert_silent(connection):
    """Raise unless nothing comes: no byte, no end."""
    connection.settimeout(SILENCE)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PROMPT)


def descriptors():
    """Return the numbers of this process's descriptors."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def threads():
    """Return the numbers of this process's threads, native ones too."""
    return {path.name for path in Path("/proc/self/task").iterdir()}
