"""Commands over many keys on Redis: requests by one template, and lines of answers read in one step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from shardcache.backends.redis.reader import Status
from shardcache.backends.redis.replies import (
    MORE,
    RAW_OF_LINE,
    More,
    Refusal,
    UnexpectedError,
    late_error,
)
from shardcache.backends.transport.coalesce import CHUNK, coalesce
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Reply
from shardcache.errors import ConfigurationError

# While an MGET runs, every other client of the server waits.
MGET_KEYS: Final = 50
MGET_BYTES: Final = 256 * 1024

# The words of a command in a batch, with the number of words in front.
SET_LINE: Final = b"*%d\r\n$3\r\nSET\r\n$%%d\r\n%%b\r\n$%%d\r\n%%b\r\n"
GET_LINE: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
DEL_LINE: Final = b"*2\r\n$3\r\nDEL\r\n$%d\r\n%b\r\n"
STORED_LINES: Final[Mapping[object, bool]] = {b"OK": True}
DELETED_LINES: Final[Mapping[object, bool]] = {1: True, 0: False}


def bulk(word: bytes) -> bytes:
    """Return a word as a command has it, with its length."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def filled(line: bytes, words: Sequence[Any]) -> list[bytes]:
    """Return a `line` for as many of the words as it holds, up to the last; before each is its length."""
    count = 2 * line.count(b"%b")
    if sum(words[::2]) <= CHUNK:
        return [line * (len(words) // count) % tuple(words)]
    return coalesce(
        line % tuple(words[place : place + count]) for place in range(0, len(words), count)
    )


def mget_spans(keys: Sequence[bytes]) -> Iterator[slice]:
    """Yield the spans of keys for one MGET each: usually a single one."""
    if 0 < len(keys) <= MGET_KEYS and sum(map(len, keys)) <= MGET_BYTES:
        yield slice(0, len(keys))
        return
    for start in range(0, len(keys), MGET_KEYS):
        yield from _halve_until_short(keys, slice(start, min(start + MGET_KEYS, len(keys))))


def _halve_until_short(keys: Sequence[bytes], span: slice) -> Iterator[slice]:
    """Halve a span until its keys are short enough in total; yield the parts."""
    if span.stop - span.start == 1 or sum(map(len, keys[span])) <= MGET_BYTES:
        yield span
        return
    middle = (span.start + span.stop) // 2
    yield from _halve_until_short(keys, slice(span.start, middle))
    yield from _halve_until_short(keys, slice(middle, span.stop))


def _length(piece: slice) -> int:
    length: int = piece.stop - piece.start
    return length


class ArraysReply:
    """The reply to a read of many keys: each array of the server fills the next of `pieces` in `replies`.

    `decode` returns the replies of one piece. `read` returns the array of a number
    of values in some bytes, or `None` if they are something else.
    """

    __slots__ = ("_decode", "_fault", "_pieces", "_read", "_replies")

    def __init__(
        self,
        replies: list[Any],
        pieces: Iterable[slice],
        decode: Callable[[Any], list[Any]],
        read: Callable[[bytes, int], list[Any] | None],
    ) -> None:
        self._replies = replies
        self._pieces = deque(pieces)
        self._decode = decode
        self._read = read
        self._fault: ConfigurationError | None = None

    @property
    def values(self) -> int:
        """Return the length of the array that the server sends next."""
        piece = self._pieces[0]
        return _length(piece)

    def read_whole(self, data: bytes) -> Reply:
        """Return all replies if they are one array, and `data` is exactly that."""
        count = len(self._replies)
        if self._pieces[0] != slice(0, count):
            return UNUSUAL
        raw = self._read(data, count)
        return UNUSUAL if raw is None else self._decode(raw)

    def take(self, raw: Any) -> Reply | More:
        """Fill the next piece."""
        return self._fill(self._decode(raw))

    def refuse(self, error: Refusal) -> Reply | More:
        """Fill the next piece with the error; a `ConfigurationError` replaces the whole reply."""
        if isinstance(error, ConfigurationError):
            self._fault = error
        return self._fill([error] * self.values)

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:
        """Return what has arrived, with a timeout in each gap."""
        replies, begin = self._replies[: self._pieces[0].start], self._decode(arrived)
        gap = len(self._replies) - len(replies) - len(begin)
        return [*replies, *begin, *[late_error(node)] * gap]

    def _fill(self, replies: list[Any]) -> Reply | More:
        self._replies[self._pieces.popleft()] = replies
        if self._pieces:
            return MORE
        return self._fault or self._replies


class LinesReply:
    """The replies to many commands, of which the server answers each by a line, in order.

    `replies` holds `None` for each that was sent, and there is at least one. `answers` has what lines
    mean, by their raw reply.
    """

    __slots__ = ("_answers", "_fault", "_left", "_places", "_replies")

    values: ClassVar[int] = 0

    def __init__(self, replies: list[Any], answers: Mapping[object, bool]) -> None:
        self._replies = replies
        self._answers = answers
        self._left = replies.count(None)
        self._places = (place for place, known in enumerate(replies) if known is None)
        self._fault: ConfigurationError | None = None

    def read_whole(self, data: bytes) -> Reply:
        """Return all replies if `data` is exactly their lines, without an error among them.

        All have the same answer, as a rule. Then one comparison is enough.
        """
        line, count = data[: data.find(b"\r\n")], len(self._replies)
        answer = self._answers.get(RAW_OF_LINE.get(line))
        if answer is not None and self._left == count and data == (line + b"\r\n") * count:
            return [answer] * count
        *lines, end = data.split(b"\r\n")
        if end or not len(lines) == self._left == len(self._replies):
            return UNUSUAL
        answers = [self._answers.get(RAW_OF_LINE.get(line)) for line in lines]
        return UNUSUAL if None in answers else answers

    def take(self, raw: Any) -> Reply | More:
        """Fill the next place."""
        answer = self._answers.get(raw) if type(raw) in {Status, int} else None
        if answer is None:
            raise UnexpectedError
        return self._fill(answer)

    def refuse(self, error: Refusal) -> Reply | More:
        """Fill the next place with the error; a `ConfigurationError` replaces the whole reply."""
        if isinstance(error, ConfigurationError):
            self._fault = error
        return self._fill(error)

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:  # noqa: ARG002 - no array comes
        """Return what has arrived, with a timeout in each gap; the rest may still arrive."""
        return [late_error(node) if known is None else known for known in self._replies]

    def _fill(self, reply: object) -> Reply | More:
        self._replies[next(self._places)] = reply
        self._left -= 1
        if self._left:
            return MORE
        return self._fault or self._replies
