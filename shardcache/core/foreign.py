"""What other clients wrote: the flags of pymemcache, python-memcached and pylibmc."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final

from shardcache.core.codecs.pickle import unpickle
from shardcache.errors import DecodeError

PICKLE: Final = 1
INTEGERS: Final = frozenset({2, 4})
ZLIB: Final = 8  # a bit beside the kind
_KINDS: Final = frozenset({0, PICKLE, 16}) | INTEGERS

# The protocols whose pickles begin with a mark. UTF-8 text cannot begin so, which the older ones can
# be: whoever writes a comment could write one.
_PICKLE_MARK: Final = 0x80
_PROTOCOLS: Final = range(2, 6)

DEFAULT_LARGEST: Final = 1024 * 1024  # bytes of a value: memcached's own limit
ROOM: Final = 64 * 1024 * 1024  # bytes that one call inflates at most
PIECE: Final = 64 * 1024  # bytes that are inflated at once


def largest_value(options: Iterable[tuple[str, str]]) -> int:
    """Return the bytes of the largest value of a node of these URL options; its own, if they say."""
    given = dict(options).get("max_value_bytes", "")
    return int(given) if given.isdecimal() else DEFAULT_LARGEST


class Room:
    """How many bytes a call may still inflate: so many for each value, and for all together."""

    __slots__ = ("_largest", "_left")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._left = max(ROOM, largest)

    def inflate(self, data: bytes) -> bytes:
        """Return what zlib made `data` of; raise `DecodeError` when it is too much, or no such data."""
        limit = min(self._largest, self._left)
        machine = zlib.decompressobj()
        try:
            inflated = self._pieces(machine, data, limit)
            # All of a value can be out before its end has been read.
            whole = bool(limit) and (machine.eof or self._ends(machine))
        except zlib.error:
            raise DecodeError("marked as compressed, but not by zlib") from None
        if not whole or machine.unused_data:
            raise DecodeError(
                f"compressed data cut short, or of more bytes than a value ({self._largest}) or"
                f" what is left for this call ({limit}) may have"
            )
        return inflated

    def _pieces(self, machine: Any, data: bytes, limit: int) -> bytes:  # zlib's, which has no name
        """Return at most `limit` bytes; what cannot be inflated to its end costs room as well."""
        pieces: list[bytes] = []
        while limit and not machine.eof:
            size = min(limit, PIECE)
            self._left -= size  # first, for an error says nothing of what was inflated before it
            piece = machine.decompress(data, size)
            self._left += size - len(piece)
            if not piece:
                break
            pieces.append(piece)
            limit -= len(piece)
            data = machine.unconsumed_tail
        return b"".join(pieces)

    @staticmethod
    def _ends(machine: Any) -> bool:  # as above
        return not machine.decompress(machine.unconsumed_tail, 1) and bool(machine.eof)


class Foreign:
    """What a client reads of others: pickles if `unsigned`, and compressed values if `compressed`.

    `largest` is the most bytes that a value is inflated to.
    """

    __slots__ = ("compressed", "largest", "unsigned")

    def __init__(self, *, unsigned: bool = False, compressed: bool = False) -> None:
        self.unsigned = unsigned
        self.compressed = compressed
        self.largest = DEFAULT_LARGEST

    def room(self) -> Room:
        """Return the room for one call."""
        return Room(self.largest)

    def opened(self, flags: int, data: bytes, room: Room | None) -> tuple[int, bytes]:
        """Return the kind and the bytes of what another client wrote, inflated if need be.

        Raise `DecodeError` for what no client writes, or this one is not to read.
        """
        kind = flags & ~ZLIB
        if kind not in _KINDS:
            raise DecodeError(
                "written by another codec, signed with a secret that this client lacks, or by none"
                " of the known clients"
            )
        if kind == PICKLE and not self.unsigned:
            raise DecodeError(
                "marked as a pickle of another client, or text of a JsonSerde: read_unsigned is off"
            )
        if flags & ZLIB:
            if not self.compressed:
                raise DecodeError("compressed by another client: read_compressed is off")
            data = (self.room() if room is None else room).inflate(data)
        return kind, data

    def unpickle(self, data: bytes) -> Any:  # a value is the caller's own
        """Return the value of an unsigned pickle; raise `DecodeError` for what does not begin as one."""
        if len(data) < 2 or data[0] != _PICKLE_MARK or data[1] not in _PROTOCOLS:  # noqa: PLR2004
            raise DecodeError(
                "marked as a pickle of another client, but begins as none of protocol 2 to 5: text of"
                " a JsonSerde, or a pickle of python-memcached's protocol 0, which is never read"
            )
        return unpickle(data)
