"""Joining the bytes of commands into pieces that are worth a system call each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CHUNK: Final = 64 * 1024  # bytes; joining more would only copy them


def coalesce(parts: Iterable[bytes]) -> list[bytes]:
    """Return the same bytes in fewer pieces: small parts are joined until they fill a `CHUNK`.

    >>> coalesce([b"GET a", b"GET b"])
    [b'GET aGET b']
    """
    chunks: list[bytes] = []
    small: list[bytes] = []
    size = 0
    for part in parts:
        small.append(part)
        size += len(part)
        if size >= CHUNK:
            chunks.append(b"".join(small))
            small.clear()
            size = 0
    if small:
        chunks.append(b"".join(small))
    return chunks
