"""A value that is too large for one read, as it arrives."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from shardcache.backends.transport.sockets import LARGE

WHOLE: Final = 1 << 22  # bytes of a value for which memory is taken before they have arrived
END: Final = b"\r\n"  # what follows a value, in both protocols


class LargeValue:
    """A value that arrives in many pieces, and the line end after it; `missing` counts the bytes to come.

    They are collected in one block of their size, which becomes the value. If all pieces were kept
    to be joined, the memory for twice the value would be given back to the system after each call, and
    its pages mapped again. A block of more than `WHOLE` bytes grows as pieces arrive: the server may
    only have announced them.
    """

    __slots__ = ("_block", "_size", "missing")

    def __init__(self, start: bytes, size: int) -> None:
        """Begin with what has arrived of a value of `size` bytes."""
        self._size = size
        total = size + len(END)
        self.missing = total - len(start)
        self._block = block = BytesIO()
        block.seek(min(total, WHOLE) - 1)
        block.write(b"\0")
        block.seek(0)
        block.write(start)

    def add(self, data: bytes) -> bytes:
        """Add what has arrived; return the bytes after the value and its line end."""
        end = self.missing
        if len(data) <= end:
            self._block.write(data)
            self.missing -= len(data)
            return b""
        self._block.write(data[:end])
        self.missing = 0
        return data[end:]

    def room(self) -> memoryview | None:
        """Return where a socket may write what is missing; release it, then `take` what it wrote.

        There is none for a block that grows.
        """
        if self._size + len(END) > WHOLE:
            return None
        return self._block.getbuffer()[-self.missing :]

    def take(self, count: int) -> None:
        """Count bytes that a socket has written into `room`."""
        self._block.seek(count, 1)
        self.missing -= count

    def value(self) -> bytes | None:
        """Return the value once nothing is missing: the block itself, not a copy.

        Return `None` if no line end follows it.
        """
        block = self._block
        block.seek(self._size)
        if block.read() != END:
            return None
        block.truncate(self._size)
        return block.getvalue()


def is_large(missing: int) -> bool:
    """Return whether a block is worth it for the bytes of a value that are missing."""
    return missing > LARGE
