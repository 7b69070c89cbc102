"""RESP2 replies from bytes, each checked before any memory is allocated for it.

hiredis allocates a list for any number of parts that a server announces, also within a reply, and
reads the maps, sets and pushes of RESP3. So it gets only complete replies in which none of these can
begin. Nearly all replies are such, and hiredis reads them in an eighth of the time. All others are
read here.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final, NamedTuple

import hiredis

from shardcache.backends.transport.large_values import LargeValue, is_large

INCOMPLETE: Final = object()

_END: Final = b"\r\n"
LARGEST: Final = 512 * 1024 * 1024  # bytes of a value: Redis's default limit
# The longest first line of each kind of reply, including its end.
LONGEST_SIZE: Final = 24
_LONGEST_TEXT: Final = 65536
_LONGEST: Final = {
    b"$": LONGEST_SIZE,
    b"*": LONGEST_SIZE,
    b":": LONGEST_SIZE,
    b"+": _LONGEST_TEXT,
    b"-": _LONGEST_TEXT,
}
_MEMCACHED: Final = (b"ERROR\r\n", b"CLIENT_ERROR ", b"SERVER_ERROR ")
# The beginning of a map, a set, a push or an attribute, at its first byte and anywhere. Unless the data
# is small, this search takes longer than reading the replies here.
_MANY: Final = b"%~>|"
_is_many: Final = re.compile(rb"[%~>|][-?\d]+\r\n").match
_begins_many: Final = re.compile(rb"[%~>|][-?\d]+\r\n").search
# To bytes that no search for the beginning of a reply finds.
UNLIKE_REPLIES: Final = bytes.maketrans(b"*" + _MANY, b"abcde")
_LOOKS: Final = 16  # at single bytes: more than the headers of some ten values have by chance
# In more data, one more look for every 512 bytes. Of 500 replies to `GET` of 100 bytes each, the versions alone
# have some 60 such bytes, and read here they would take six times as long.
_BYTES_A_LOOK: Final = 512
# The beginning of a RESP3 reply without parts: a null, a boolean, a double, a big number, a verbatim
# string or a long error. hiredis reads these as well.
_SCALARS: Final = b"_#,(=!"
_begins_scalar: Final = re.compile(rb"\r\n[_#,(=!]").search
_find_array: Final = re.compile(rb"\*[-?\d]+\r\n").search
_SMALL: Final = 4096  # bytes
_SEARCHED: Final = 256  # bytes a value up to which a search is faster than a look at each value
_VALUE, _STATUS, _ARRAY = b"$+*"
_KINDS: Final = b"$+-:*"  # the first bytes of RESP2


class Status(bytes):
    """A reply that is a status such as `OK`, and so never a value."""

    __slots__ = ()


class TooLarge(NamedTuple):
    """The size in bytes of a value that was too large to keep; it stands for that value."""

    size: int


class MalformedReplyError(Exception):
    """The bytes are not a reply that is expected."""


class Headed(NamedTuple):
    """A value in two parts, so that the second needs no copy."""

    head: bytes
    rest: bytes


class ReplyReader:
    """A reader of the replies on one connection, in the order of their arrival.

    `ready` holds replies that have been read already; they precede those that `read` returns. A value
    of more than `largest` bytes is skipped as it arrives.
    """

    __slots__ = (
        "_arrived",
        "_data",
        "_head",
        "_large",
        "_largest",
        "_left",
        "_missing",
        "_place",
        "_reader",
        "_skipped",
        "_strict_until",
        "_values",
        "ready",
    )

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._skipped = 0  # bytes still to come of a value that is skipped
        self.ready: deque[Any] = deque()  # each bytes, a status, an int, an error or None
        self._data = b""
        self._place = 0  # the start in `_data` of the next reply, or of the next value of an array
        self._arrived: list[bytes] = []  # fragments that follow `_data`
        self._large: LargeValue | None = None  # the value that is arriving
        self._head = b""  # its first bytes, if they are apart
        self._missing = 0  # bytes that must arrive before `_data` is worth another look
        self._strict_until = 0  # hiredis cannot read anything up to this place
        self._values: list[bytes | None] = []  # of the array that is arriving
        self._left = 0  # how many values of it are missing
        self._reader = _make_reader()

    @property
    def empty(self) -> bool:
        """Return whether all bytes have been read as replies."""
        return self._place == len(self._data) and not (
            self._arrived or self._left or self.ready or self._large
        )

    @property
    def at_rest(self) -> bool:
        """Return whether nothing more belongs to what has arrived: no byte is left, none to be skipped."""
        # The text of `empty`, to save the call: it is asked for every reply.
        read = self._place == len(self._data) and not (self._arrived or self._left or self.ready)
        return read and not self._skipped and self._large is None

    @property
    def arriving(self) -> list[Any]:
        """Return the values so far of the array that is arriving; none if none is."""
        return self._values if self._left else []

    def feed(self, data: bytes) -> None:
        """Accept bytes in fragments of any size."""
        if self._skipped:
            data = self._skip(data)
        if self._large is not None:
            data = self._large.add(data)
        if self._place == len(self._data) and not self._arrived:
            self._data, self._place, self._strict_until = data, 0, 0
        else:
            self._arrived.append(data)
        self._missing -= len(data)

    # The reply may be of any type, hence `Any`. One function, because it is on the hot path of a `get`.
    def read(self, values: int, head: int = 0) -> Any:  # noqa: PLR0911 - as above
        """Return the next reply or `INCOMPLETE`; raise `MalformedReplyError` for an unexpected one.

        A large value may be returned as `Headed`, its first `head` bytes apart from the rest.

        An array with that number of `values` is expected, or no array for 0. An error may replace
        it. Its values may also be numbers and errors, so the caller checks for bytes.
        """
        if self.ready:
            return self.ready.popleft()
        if self._large is not None:
            return INCOMPLETE if self._large.missing else self._end_large(self._large)
        if self._arrived and not self._join_arrived():
            return INCOMPLETE
        if self._left:
            return self._read_rest_of_array()
        start = self._place
        kind = self._data[start : start + 1]
        if not kind:
            return INCOMPLETE
        if values:
            return self._read_array(kind, values)
        if start > self._strict_until and self._read_run():  # the second of several replies
            return self.ready.popleft()
        return self._read_value(head) if kind == b"$" else self._read_line(kind)

    def whole_array(self, data: bytes, values: int) -> list[Any] | None:
        """Return an array of that many values as `feed` and `read` do; `None` if `data` is something else.

        Nothing else may have arrived.
        """
        if not data.startswith(b"*%d\r\n" % values) or _find_array(data, 1):
            return None
        found = self._read_with_hiredis(data)
        return found[0] if len(found) == 1 else None

    def room(self) -> memoryview | None:
        """Return where a socket may write the rest of a large value, if one is arriving; then `take`."""
        return None if self._large is None else self._large.room()

    def take(self, count: int) -> None:
        """Accept bytes that a socket has written into `room`."""
        if self._large is not None:
            self._large.take(count)

    def _begin_large(self, begin: int, size: int, head: int) -> None:
        """Collect a large value whose first bytes have arrived, once its `head` has."""
        start = self._data[begin:]
        if len(start) < head:
            self._missing = head - len(start)
            return
        self._head, self._large = start[:head], LargeValue(start[head:], size - head)
        self._data, self._place = b"", 0

    def _end_large(self, large: LargeValue) -> Any:
        """Return a large value that has arrived whole, or go on with the array that it belongs to."""
        value = large.value()
        if value is None:
            raise MalformedReplyError("sent a value longer or shorter than announced")
        self._large = None
        if not self._left:
            return Headed(self._head, value) if self._head else value
        self._values.append(value)
        self._left -= 1
        return self._read_rest_of_array()

    def _join_arrived(self) -> bool:
        """Join the fragments; return whether enough has arrived to read on."""
        if self._missing > 0:
            return False
        self._data = b"".join((self._data[self._place :], *self._arrived))
        self._place = self._strict_until = 0
        self._arrived = []
        return True

    def _read_run(self) -> bool:
        """Read all replies up to the next array with hiredis; return whether it could."""
        end = self._next_array()
        found = self._read_with_hiredis(self._data[self._place : end])
        if found:
            self.ready.extend(found)
            self._place = end
            return True
        self._strict_until = end
        return False

    def _next_array(self) -> int:
        """Return the next place where an array may begin, or the end."""
        data = self._data
        # First, because a regular expression takes longer to find nothing.
        place = data.find(b"*", self._place)
        found = _find_array(data, place) if place >= 0 else None
        return found.start() if found else len(data)

    def _read_with_hiredis(self, data: bytes) -> list[Any]:
        """Return the replies that hiredis reads, or none unless all are complete and harmless."""
        if data[-2:] != _END or not _is_harmless(data):
            return []
        reader = self._reader
        reader.feed(data)
        try:
            found = [reader.gets()]
            if reader.has_data():
                found += iter(reader.gets, INCOMPLETE)
                if reader.has_data():
                    found = []
            if found and found[0] is not INCOMPLETE:
                return found if b"+" not in data else _with_statuses(data, found)
        except hiredis.ProtocolError:
            pass  # the strict reader below reports what is wrong
        self._reader = _make_reader()
        return []

    def _read_value(self, head: int = 0) -> Any:
        """Return the next value, `None` for a missing one, or `INCOMPLETE`; `head` is as in `read`."""
        data, start = self._data, self._place
        end = data.find(_END, start, start + LONGEST_SIZE)
        size = data[start + 1 : end]
        if end < 0 or not size.isdigit():
            return self._read_missing_value(end, size)
        begin = end + 2
        end = begin + int(size)
        following = end + 2
        if following > len(data):
            if end - begin > LARGEST:
                raise MalformedReplyError(f"sent a value of invalid size ({end - begin} bytes)")
            if end - begin > self._largest:
                return self._begin_to_skip(begin, following)
            self._missing = following - len(data)
            if is_large(self._missing):
                self._begin_large(begin, end - begin, head)
            return INCOMPLETE
        if data[end:following] != _END:
            raise MalformedReplyError("sent a value longer or shorter than announced")
        if following == len(data):
            self._data, self._place = b"", 0  # a large value is not kept here
        else:
            self._place = following
        return data[begin:end]

    def _begin_to_skip(self, begin: int, following: int) -> TooLarge:
        """Skip what has arrived of a value that is too large; return what stands for it."""
        rest = self._data[begin:]
        self._data, self._place = b"", 0
        self._skipped = following - begin
        self._skip(rest)
        return TooLarge(following - begin - len(_END))

    def _skip(self, data: bytes) -> bytes:
        """Skip the rest of a value that is too large; return the bytes after it."""
        end = self._skipped
        for place, letter in ((end - 2, _END[:1]), (end - 1, _END[1:])):
            if place >= 0 and data[place : place + 1] not in {letter, b""}:
                raise MalformedReplyError("sent a value longer or shorter than announced")
        self._skipped = max(0, end - len(data))
        return data[end:]

    def _read_missing_value(self, end: int, size: bytes) -> Any:
        if end < 0:
            if self._read_text(b"$") is None:
                return INCOMPLETE
        elif size == b"-1":
            self._place = end + 2
            return None
        raise MalformedReplyError("sent a value of invalid size")

    def _read_line(self, kind: bytes) -> Any:
        """Return the next reply that is a line, or `INCOMPLETE`."""
        text = self._read_text(kind)
        if text is None:
            return INCOMPLETE
        if kind == b"+":
            return Status(text)
        if kind == b"-":
            return hiredis.ReplyError(text.decode(errors="replace"))
        if kind == b":" and text.removeprefix(b"-").isdigit():
            return int(text)
        raise MalformedReplyError("sent a reply of the wrong type")

    def _read_text(self, kind: bytes) -> bytes | None:
        """Return the next line without its first byte, or `None` if it is incomplete."""
        data, start = self._data, self._place
        limit = _LONGEST.get(kind, 0)
        end = data.find(_END, start, start + limit)
        if end < 0:
            if len(data) - start < limit:
                self._missing = 1
                return None
            if data.startswith(_MEMCACHED, start):
                raise MalformedReplyError(
                    "answers like memcached: for a memcached node use memcached://"
                )
            raise MalformedReplyError("sent a reply of unknown type, or a line that is too long")
        self._place = end + 2
        return data[start + 1 : end]

    def _read_array(self, kind: bytes, values: int) -> Any:
        """Return the expected array, the error in its place, or `INCOMPLETE`."""
        start, line = self._place, b"*%d\r\n" % values
        if self._data.startswith(line, start):
            self._place += len(line)
            return self._read_whole_array(start) or self._begin_array(values)
        if kind == b"-":
            return self._read_line(kind)
        if self._read_text(kind) is None:
            return INCOMPLETE
        raise MalformedReplyError(f"sent another reply than the expected {values} values")

    def _read_whole_array(self, start: int) -> Any:
        """Return the array at `start` as hiredis reads it, or `None` if hiredis cannot."""
        end = self._next_array()
        found = self._read_with_hiredis(self._data[start:end])
        if not found:
            return None
        self._place = end
        if len(found) > 1:
            self.ready.extend(found[1:])
        return found[0]

    def _begin_array(self, values: int) -> Any:
        self._values, self._left = [], values
        return self._read_rest_of_array()

    def _read_rest_of_array(self) -> Any:
        """Return the array that has begun to arrive, or `INCOMPLETE`.

        The values that have arrived are read in one loop: with `_read_value` each would take twice
        as long.
        """
        data, values = self._data, self._values
        left, place, size = self._left, self._place, len(data)
        while left:
            end = data.find(_END, place, place + LONGEST_SIZE)
            digits = data[place + 1 : end]
            if data[place : place + 1] != b"$" or end < 0 or not digits.isdigit():
                break
            begin = end + 2
            end = begin + int(digits)
            if data[end : end + 2] != _END:
                break
            values.append(data[begin:end])
            place = end + 2
            left -= 1
        self._left, self._place = left, place
        if not left:
            return values
        if place == size:
            return INCOMPLETE
        if data[place : place + 1] != b"$":
            raise MalformedReplyError("sent an array element that is not a value")
        value = self._read_value()
        if value is INCOMPLETE:
            return INCOMPLETE
        values.append(value)
        self._left -= 1
        return self._read_rest_of_array() if self._left else values


def _is_harmless(data: bytes) -> bool:
    """Return whether no reply is of RESP3 or has parts, except for an array at the beginning.

    In more than a few kilobytes RESP3 scalars are not searched for, which would take as long as reading
    them: hiredis turns them into a value or `None`, which a server could also have sent in RESP2.
    """
    small = len(data) <= _SMALL
    looks = _LOOKS + len(data) // _BYTES_A_LOOK
    for first in _MANY:
        place = data.find(first)
        while place >= 0:
            if _is_many(data, place):
                return False
            looks -= 1
            if not looks:
                return small and not _begins_many(data) and not _begins_scalars(data)
            place = data.find(first, place + 1)
    return not small or not _begins_scalars(data)


def _with_statuses(data: bytes, found: list[Any]) -> list[Any]:
    """Return the replies that hiredis has read of `data`, with each status as a `Status`.

    hiredis reads a status and a value alike. None are returned if an array has a status in it.
    """
    values = found[0] if type(found[0]) is list else found
    short = len(data) < _SEARCHED * len(values)
    if short and data[0] != _STATUS and data.find(b"\r\n+") < 0:
        return found
    marked: list[Any] = []
    place = 0
    for reply in found:
        if data[place] == _ARRAY and reply is not None:
            place = data.find(_END, place) + 2
            for value in reply:
                if data[place] != _VALUE:
                    return []
                place = _following(data, place, value)
            marked.append(reply)
            continue
        if data[place] not in _KINDS:
            return []
        marked.append(Status(reply) if data[place] == _STATUS else reply)
        place = _following(data, place, reply)
    return marked


def _following(data: bytes, place: int, reply: Any) -> int:  # as above
    """Return where the reply at `place` ends."""
    end = data.find(_END, place) + 2
    return end + len(reply) + 2 if type(reply) is bytes and data[place] == _VALUE else end


def _begins_scalars(data: bytes) -> bool:
    return data[0] in _SCALARS or _begins_scalar(data) is not None


def _make_reader() -> hiredis.Reader:
    return hiredis.Reader(notEnoughData=INCOMPLETE)
