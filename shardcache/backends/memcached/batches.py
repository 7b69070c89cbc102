"""Commands over many keys in the meta protocol: requests by one template, replies by one comparison.

Formatting each line, and looking at each, would take three to five times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

from shardcache.backends.memcached.replies import (
    CRLF,
    END,
    MAX_DIGITS,
    MAX_FLAGS,
    MORE,
    RECACHE,
    UNEXPECTED,
    Answers,
    GetReply,
    Head,
    NotAHitError,
    SingleReply,
    late_error,
    match_hit,
    parse_hit_head,
    read_get,
)
from shardcache.backends.transport.coalesce import CHUNK
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Hits, Items, Payload, Reply
from shardcache.core.keys import MAX_PLAIN, PLAIN
from shardcache.errors import NodeError

TEMPLATED: Final = 1000  # keys of a batch that a template has lines for

_is_number = re.compile(rb"[0-9]{1,10}").fullmatch


class Template:
    """A line for each command of a batch, with the last digits of its token.

    In `line`, `#` stands for the token. The rest is for its users: `~` for a word that all lines have,
    and what bytes are formatted by for what differs.
    """

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._size = len(line.replace(b"#", b"@000"))
        # All of them, with "@" for the first digits of the tokens, from first use.
        self._lines = b""

    def fill(self, first: int, start: int, stop: int) -> bytes:
        """Return the lines of some places of a batch whose first token is `first`, which ends in zeros."""
        size = self._size
        lines = self._lines or self._make_lines()
        return lines[start * size : stop * size].replace(b"@", b"%d" % (first // TEMPLATED))

    def fill_for(self, keys: Sequence[bytes], first: int) -> bytes | None:
        """Return the lines for these keys, or `None` unless there is one for each, and each is plain.

        Lines are formatted by the keys.
        """
        count = len(keys)
        if not 0 < count <= TEMPLATED:
            return None
        joined = b"".join(keys)
        if joined.translate(None, PLAIN):
            return None
        # A key that is too long has more than this, with others of a byte at least.
        if len(joined) >= MAX_PLAIN + count and max(map(len, keys)) > MAX_PLAIN:
            return None
        return self.fill(first, 0, count)

    def _make_lines(self) -> bytes:
        lines = [self._line.replace(b"#", b"@%03d" % place) for place in range(TEMPLATED)]
        self._lines = b"".join(lines)
        return self._lines


GETS: Final = Template(b"mg %b v f O#\r\n")
QUIET_GETS: Final = Template(b"mg %b v f q O#\r\n")  # whose misses cost no bytes
DELETES: Final = Template(b"md %b O#\r\n")
_HIT_HEADS: Final = Template(b"VA %d f~ O#\r\n")
_STORES: Final = Template(b"ms %b %d ~ O#\r\n%b\r\n")
_ANSWERS: Final = Template(b"~ O#\r\n")
_END_LINE: Final = END + CRLF


def stores(
    items: Sequence[tuple[bytes, Payload]], first: int, expiry: int, largest: int
) -> bytes | None:
    """Return the requests that store items.

    There are none unless all keys are plain, each value has at most `largest` bytes, and all fit in
    one piece.
    """
    words: list[Any] = []
    stored = b"F%%d T%d" % expiry
    if isinstance(items, Items):
        keys, sizes, stored = items.keys, list(map(len, items.data)), stored % items.flags
        words = [b""] * (3 * len(keys))
        words[::3], words[1::3], words[2::3] = keys, sizes, items.data
    else:
        for key, (flags, data) in items:
            words += (key, len(data), flags, data)
        keys, sizes = words[::4], words[1::4]
    lines = _STORES.fill_for(keys, first)
    if lines is None or sum(sizes) > CHUNK or max(sizes) > largest:
        return None
    return lines.replace(b"~", stored) % tuple(words)


def _common_flags(
    heads: Sequence[bytes], values: Sequence[bytes], first: int, start: int
) -> int | None:
    """Return the flags of hits if all have the same, and the heads that follow from their places and values.

    The hits are those of the places from `start`. A value that contains a CRLF is cut shorter than its
    announced length, and so has another head.
    """
    flags = heads[0].rpartition(b" O")[0].rpartition(b" f")[2]
    if not flags.isdigit() or len(flags) > MAX_FLAGS:
        return None
    lines = _HIT_HEADS.fill(first, start, start + len(values)).replace(b"~", flags)
    expected = lines % tuple(map(len, values))
    return int(flags) if b"\r\n".join(heads) == expected[: -len(CRLF)] else None


def _read_run(  # noqa: PLR0913, PLR0917 - where it is looked for, and what is expected there
    text: bytes, position: int, first: int, start: int, left: int, largest: int
) -> tuple[list[Payload], int] | None:
    """Return the hits that begin at `position`, and where they end; `None` unless all are as expected.

    They are those of the places from `start`, up to the last in `text`, and at most `left`.
    """
    if left <= 0:
        return None
    *lines, _ = text[position:].split(CRLF, 2 * left)
    values = lines[1::2]
    if not values:
        return None
    heads = lines[: 2 * len(values) : 2]
    flags = _common_flags(heads, values, first, start)
    sizes = list(map(len, values))
    if flags is None or max(sizes) > largest:
        return None
    end = position + sum(map(len, heads)) + sum(sizes) + 2 * len(CRLF) * len(values)
    return list(zip(repeat(flags), values)), end


class GetsTogetherReply(SingleReply):
    """The replies to gets that were sent together: each reply is that to the next of them.

    Their number is at most `TEMPLATED`, and their tokens are `first` and those after it.
    """

    __slots__ = ("_alike", "_count", "_first", "_next")

    def __init__(self, first: int, count: int) -> None:
        super().__init__(b"O%d" % first)
        self._first = first
        self._count = count
        self._next = 0  # the place of the next reply
        self._alike = True  # whether all replies so far were hits with the same flags

    def _advance(self, count: int) -> None:
        self._next += count
        self.token = b"O%d" % (self._first + self._next)

    def read_whole(self, data: bytes) -> Any:
        """Return the payload if `data` is exactly the next hit, or `None` if it is a miss."""
        return read_get(data, b" %b\r\n" % self.token)

    def take_all(self, text: bytes, position: int, largest: int, replies: list[Reply]) -> int:
        """Append the replies that begin at `position`; return where they end.

        It stops at what is neither a hit nor a miss, and at what is incomplete. All are hits with the same
        flags, as a rule. Then one comparison is enough.
        """
        left = self._count - self._next
        if self._alike and left > 1:
            run = _read_run(text, position, self._first, self._next, left, largest)
            if run is not None:
                hits, end = run
                replies += hits
                self._advance(len(hits))
                return end
            self._alike = False
        return self._take_each(text, position, largest, replies)

    def _take_each(self, text: bytes, position: int, largest: int, replies: list[Reply]) -> int:
        """Do the same, and look at each reply."""
        single = GetReply(self.token)
        while self._next < self._count:
            known, miss = len(replies), b"EN %b\r\n" % self.token
            single.token = self.token
            if text.startswith(miss, position):
                replies.append(None)
                position += len(miss)
            else:
                position = single.take_hit(text, position, largest, replies)
                if len(replies) == known:
                    break
            self._advance(1)
        return position

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the payload, or `None` on a miss."""
        reply = GetReply(self.token).take(head, value)
        if reply is not UNEXPECTED:
            self._advance(1)
        return reply

    def refuse(self, error: NodeError) -> NodeError:
        """Return the refusal as the next reply."""
        self._advance(1)
        return error


class GetManyReply:
    """The replies to many quiet `mg`: hits by token, in order, up to `MN`."""

    __slots__ = ("_count", "_first", "_next", "_results")

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        self._next = 0  # hits come in the order of the keys: the next has at least this index
        self._results: list[Payload | NodeError | None] = [None] * count

    def read_whole(self, data: bytes) -> Any:
        """Return all replies if `data` is expected hits and `MN`, and no value contains a CRLF.

        `scan` decides everything else: a value that contains a CRLF is cut shorter than its announced
        length. Where all keys are found with the same flags, one comparison of all heads with those
        expected takes a third of the time of one for each.
        """
        if not data.endswith(_END_LINE):
            return UNUSUAL
        parts = data.split(CRLF)
        if parts[-2] != END or len(parts) % 2:
            return UNUSUAL
        heads, values = parts[:-2:2], parts[1:-2:2]
        if 0 < len(values) == self._count <= TEMPLATED:
            flags = _common_flags(heads, values, self._first, 0)
            if flags is not None:
                return Hits(flags, values)
        return self._read_one_by_one(heads, values)

    def take_run(self, text: bytes, position: int, largest: int) -> int:
        """Accept the hits of the next keys that begin at `position`; return where they end.

        They are read as in `read_whole`: all hits up to the last that this reply can have, or none.
        """
        start = self._next
        left = min(self._count, TEMPLATED) - start
        run = _read_run(text, position, self._first, start, left, largest)
        if run is None:
            return position
        hits, end = run
        self._next = stop = start + len(hits)
        self._results[start:stop] = hits
        return end

    def _read_one_by_one(self, heads: Sequence[bytes], values: Sequence[bytes]) -> Any:
        """Return all replies in some hits, each with a head and a value, or `UNUSUAL`."""
        results, first, last = self._results, self._first, self._count
        following = self._next
        try:
            for head, value in zip(heads, values, strict=True):
                shape, _, token = head.rpartition(b" O")
                if not token.isdigit() or len(token) > MAX_DIGITS:
                    return UNUSUAL
                place = int(token) - first
                size, flags = parse_hit_head(shape)
                if not following <= place < last or len(value) != size:
                    return UNUSUAL
                results[place] = (flags, value)
                following = place + 1
        except NotAHitError:
            return UNUSUAL
        return results

    def scan(self, text: bytes, position: int, largest: int) -> int:
        """Accept the complete hits that begin at `position`; return where they end.

        This is a separate loop because a large batch spends most of its time here. It stops at
        anything that is not a complete expected hit of at most `largest` bytes. That is an illegal
        reply, unless it is incomplete or too large.
        """
        results, first, last = self._results, self._first, self._count
        following = self._next
        while hit := match_hit(text, position):
            size, flags, token = hit.groups()
            start = hit.end()
            length = int(size)
            stop = start + length
            place = int(token) - first
            if not following <= place < last or not text.startswith(CRLF, stop) or length > largest:
                break
            results[place] = (int(flags), text[start:stop])
            following = place + 1
            position = stop + 2
        self._next = following
        return position

    def take(self, head: Head, value: bytes | None) -> Any:
        """Accept a hit that `scan` has not taken, or return all replies at `MN`."""
        if value is None:
            return self._results if list(head) == [END] else UNEXPECTED
        match head:
            case [b"VA", _, flags, token, *marks] if (
                flags[:1] == b"f" and _is_number(flags[1:]) and RECACHE.issuperset(marks)
            ):
                return self._put(token, (int(flags[1:]), value))
        return UNEXPECTED

    def too_large(self, head: Head, error: NodeError) -> Any:
        """Store the error for its key."""
        match head:
            case [b"VA", _, _, token, *_]:
                return self._put(token, error)
        return UNEXPECTED

    def _put(self, token: bytes, reply: Payload | NodeError) -> Any:
        if token[:1] == b"O" and _is_number(token[1:]):
            place = int(token[1:]) - self._first
            if self._next <= place < self._count:
                self._results[place] = reply
                self._next = place + 1
                return MORE
        return UNEXPECTED

    def refuse(self, error: NodeError) -> Any:
        """Raise the refusal: after quiet commands its key is unknown."""
        raise error

    def partial_reply(self, node: str) -> Reply:
        """Return the hits so far; every key after the last hit is late."""
        gap = self._count - self._next
        return self._results[: self._next] + [late_error(node)] * gap


class BatchReply:
    """The replies to many commands that are not quiet, in order, up to `MN`.

    `results` holds `None` for each expected answer, whose token is `first` and its place.
    """

    __slots__ = ("_answers", "_first", "_next", "_results", "_whole")

    def __init__(self, results: list[Any], first: int, answers: Answers) -> None:
        self._results = results
        self._next = 0  # no command before this place waits for its answer
        self._whole = results.count(None) == len(results) <= TEMPLATED
        self._first = first
        self._answers = answers

    def read_whole(self, data: bytes) -> Any:
        """Return all answers if `data` is exactly theirs and `MN`, without an error among them."""
        if not self._whole or not data.endswith(_END_LINE):
            return UNUSUAL
        answers = self._read_lines(data[: -len(_END_LINE)], 0, len(self._results))
        return UNUSUAL if answers is None else answers

    def take_run(self, text: bytes, position: int, largest: int) -> int:  # noqa: ARG002 - it has no values
        """Accept the answers that begin at `position`, up to the last in `text`; return where they end."""
        start, stop = self._next, len(self._results)
        if not self._whole or start == stop:
            return position
        end = text.find(_END_LINE, position)
        if end < 0:
            end = text.rfind(CRLF, position) + len(CRLF)
            stop = start + text.count(CRLF, position, end)
        answers = None
        if start < stop <= len(self._results):
            answers = self._read_lines(text[position:end], start, stop)
        if answers is None:
            return position
        self._results[start:stop] = answers
        self._next = stop
        return end

    def _read_lines(self, text: bytes, start: int, stop: int) -> list[bool | None] | None:
        """Return the answers of some places if `text` is exactly their lines, or else nothing.

        All have the same answer, as a rule. Then one comparison is enough.
        """
        expected = _ANSWERS.fill(self._first, start, stop)
        code = text[:2]
        answer = self._answers.get(code)
        if answer is not None and text == expected.replace(b"~", code):
            return [answer] * (stop - start)
        *lines, rest = text.split(CRLF)
        tails = b"".join([b"~%b\r\n" % line[2:] for line in lines])
        if rest or len(lines) != stop - start or tails != expected:
            return None
        answers = [self._answers.get(line[:2]) for line in lines]
        return None if None in answers else answers

    def take(self, head: Head, value: bytes | None) -> Any:
        """Accept one answer; return all of them at `MN`."""
        if value is not None:
            return UNEXPECTED
        if list(head) == [END]:
            return self._results if self._next_gap() is None else UNEXPECTED
        match head:
            case [code, token] if code in self._answers:
                return self._put(self._answers[code], token)
        return UNEXPECTED

    def too_large(self, head: Head, error: NodeError) -> Any:  # noqa: ARG002 - it has no values
        """Return `UNEXPECTED`: no value belongs to this reply."""
        return UNEXPECTED

    def refuse(self, error: NodeError) -> Any:
        """Accept the refusal as the answer to the next command."""
        return self._put(error)

    def _put(self, answer: object, token: bytes | None = None) -> object:
        place = self._next_gap()
        if place is None or token not in {None, b"O%d" % (self._first + place)}:
            return UNEXPECTED
        self._results[place] = answer
        self._next = place + 1
        return MORE

    def _next_gap(self) -> int | None:
        """Return the place of the next command that waits for its answer, `None` if none does."""
        for place in range(self._next, len(self._results)):
            if self._results[place] is None:
                return place
        return None

    def partial_reply(self, node: str) -> Reply:
        """Return the answers so far; the others are late."""
        return [late_error(node) if known is None else known for known in self._results]
