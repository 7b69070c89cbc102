"""Values that pymemcache, python-memcached and pylibmc wrote, under the flags they use."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from shardcache.core.codecs.pickle import unpickle
from shardcache.errors import DecodeError

# `"plain"` is bytes, text and whole numbers; `True` is pickles as well.
ReadUnsigned: TypeAlias = bool | Literal["plain"]

PICKLE: Final = 1
INTEGERS: Final = frozenset({2, 4})
ZLIB: Final = 8  # a bit that is added to the kind
_KINDS: Final = frozenset({0, PICKLE, 16}) | INTEGERS

# The pickle protocols that begin with a mark, which UTF-8 text cannot begin with. Older protocols
# have none: a user's text, stored by another program, could be such a pickle.
_PICKLE_MARK: Final = 0x80
_PROTOCOLS: Final = range(2, 6)

DEFAULT_LARGEST: Final = 1024 * 1024  # bytes of a value: memcached's own limit
MAX_INFLATED: Final = 64 * 1024 * 1024  # bytes that one call inflates at most
CHUNK: Final = 64 * 1024  # bytes that are inflated at once


def largest_value(options: Iterable[tuple[str, str]]) -> int:
    """Return the size in bytes of the largest value on a node with these URL options."""
    text = dict(options).get("max_value_bytes", "")
    return int(text) if text.isdecimal() else DEFAULT_LARGEST


class InflateBudget:
    """How many bytes a call may still inflate: a limit for each value, and one for all together."""

    __slots__ = ("_largest", "_left")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._left = max(MAX_INFLATED, largest)

    def inflate(self, data: bytes) -> bytes:
        """Return zlib's data inflated; raise `DecodeError` if it is too large, or not zlib's."""
        limit = min(self._largest, self._left)
        machine = zlib.decompressobj()
        try:
            inflated = self._inflate_up_to(machine, data, limit)
            # zlib may return all of a value before it has read the end of the data.
            whole = bool(limit) and (machine.eof or self._ends(machine))
        except zlib.error:
            raise DecodeError("marked as compressed, but not by zlib") from None
        if not whole or machine.unused_data:
            raise DecodeError(
                f"compressed data is truncated, or inflates beyond the limit of a value"
                f" ({self._largest}) or of this call ({limit})"
            )
        return inflated

    def _inflate_up_to(self, machine: Any, data: bytes, limit: int) -> bytes:  # zlib's, unnamed
        """Return at most `limit` bytes; data that turns out to be broken uses up budget as well."""
        chunks: list[bytes] = []
        while limit and not machine.eof:
            size = min(limit, CHUNK)
            self._left -= size  # first, because an error does not say how much was inflated
            chunk = machine.decompress(data, size)
            self._left += size - len(chunk)
            if not chunk:
                break
            chunks.append(chunk)
            limit -= len(chunk)
            data = machine.unconsumed_tail
        return b"".join(chunks)

    @staticmethod
    def _ends(machine: Any) -> bool:  # as above
        return not machine.decompress(machine.unconsumed_tail, 1) and bool(machine.eof)


class OtherClients:
    """Which values of other clients are read: pickles if `unsigned`, compressed ones if `compressed`.

    With a secret, `unsigned` also says whether any of their values are read; `"plain"` excludes pickles.
    `largest` is the size in bytes up to which a value is inflated.
    """

    __slots__ = ("compressed", "largest", "unsigned")

    def __init__(self, *, unsigned: ReadUnsigned = False, compressed: bool = False) -> None:
        self.unsigned = unsigned
        self.compressed = compressed
        self.largest = DEFAULT_LARGEST

    def budget(self) -> InflateBudget:
        """Return the budget of one call."""
        return InflateBudget(self.largest)

    def open(self, flags: int, data: bytes, budget: InflateBudget | None) -> tuple[int, bytes]:
        """Return the kind and the bytes of a value that another client wrote, inflated if need be.

        Raise `DecodeError` for flags of no known client, and for values that must not be read.
        """
        kind = flags & ~ZLIB
        if kind not in _KINDS:
            raise DecodeError(
                "written by another codec, signed with a secret that this client lacks, or by none"
                " of the known clients"
            )
        if kind == PICKLE and self.unsigned is not True:
            raise DecodeError(
                "marked as a pickle of another client, or text of a JsonSerde: pickles are read only"
                " with read_unsigned=True"
            )
        if flags & ZLIB:
            if not self.compressed:
                raise DecodeError("compressed by another client: read_compressed is off")
            data = (self.budget() if budget is None else budget).inflate(data)
        return kind, data

    @staticmethod
    def unpickle(data: bytes) -> Any:  # a value may be anything
        """Return the value of an unsigned pickle; raise `DecodeError` if it does not begin as one."""
        if len(data) < 2 or data[0] != _PICKLE_MARK or data[1] not in _PROTOCOLS:  # noqa: PLR2004
            raise DecodeError(
                "marked as a pickle of another client, but is not of protocol 2 to 5: text of"
                " a JsonSerde, or a pickle of python-memcached's protocol 0, which is never read"
            )
        return unpickle(data)
