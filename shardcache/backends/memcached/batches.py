"""Commands over many keys in the meta protocol: requests by one template, replies by one comparison.

Formatting each line, and looking at each, would take three to five times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import Any, Final

from shardcache.backends.memcached.replies import (
    CRLF,
    END,
    MAX_DIGITS,
    MORE,
    RECACHE,
    UNEXPECTED,
    Answers,
    Head,
    NotAHitError,
    late_error,
    match_hit,
    parse_hit_head,
)
from shardcache.backends.transport.coalesce import CHUNK
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Payload, Reply
from shardcache.core.keys import MAX_PLAIN
from shardcache.errors import NodeError

TEMPLATED: Final = 1000  # keys of a batch that a template has lines for

_all_plain = re.compile(rb"[!-~]*").fullmatch
_is_number = re.compile(rb"[0-9]{1,10}").fullmatch


class Template:
    """A line for each command of a batch, with the last digits of its token.

    In `line`, `#` stands for the token, `~` for a number that all lines have, and what bytes are
    formatted by for what differs.
    """

    def __init__(self, line: bytes) -> None:
        self._line = line

    @cached_property
    def _lines(self) -> bytes:
        """All lines, with "@" for the first digits of the tokens; made at first use."""
        return b"".join(self._line.replace(b"#", b"@%03d" % place) for place in range(TEMPLATED))

    def fill(
        self, count: int, first: int, values: tuple[object, ...] = (), number: bytes = b""
    ) -> bytes:
        """Return `count` lines, whose tokens begin at `first`, a multiple of `TEMPLATED`."""
        lines = self._lines[: count * (len(self._lines) // TEMPLATED)]
        digits = b"%d" % (first // TEMPLATED)
        return lines.replace(b"@", digits).replace(b"~", number) % values


_QUIET_GETS: Final = Template(b"mg %b v f q O#\r\n")
_HIT_HEADS: Final = Template(b"VA %d f~ O#\r\n")
_STORES: Final = Template(b"ms %b %d F%d T~ O#\r\n%b\r\n")
_DELETES: Final = Template(b"md %b O#\r\n")
_TAILS: Final = Template(b" O#")


def are_plain(keys: Sequence[bytes]) -> bool:
    """Return whether a template has lines for these keys: not too many, and each as it is sent."""
    return (
        len(keys) <= TEMPLATED
        and max(map(len, keys), default=0) <= MAX_PLAIN
        and _all_plain(b"".join(keys)) is not None
    )


def quiet_gets(keys: Sequence[bytes], first: int) -> bytes:
    """Return the requests for plain keys, whose misses cost no bytes."""
    return _QUIET_GETS.fill(len(keys), first, tuple(keys))


def deletes(keys: Sequence[bytes], first: int) -> bytes:
    """Return the requests that delete plain keys."""
    return _DELETES.fill(len(keys), first, tuple(keys))


def stores(items: Sequence[tuple[bytes, Payload]], first: int, expiry: int) -> bytes:
    """Return the requests that store plain keys."""
    words = [(key, len(data), int(flags), data) for key, (flags, data) in items]
    return _STORES.fill(len(items), first, tuple(chain.from_iterable(words)), b"%d" % expiry)


def are_small(items: Sequence[tuple[bytes, Payload]], largest: int) -> bool:
    """Return whether each value of a batch has at most `largest` bytes, and all fit in one piece."""
    sizes = [len(data) for _, (_, data) in items]
    return sum(sizes) <= CHUNK and max(sizes, default=0) <= largest


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
        if not data.endswith(CRLF):
            return UNUSUAL
        *parts, end, _ = data.split(CRLF)
        if end != END or len(parts) % 2:
            return UNUSUAL
        heads, values = parts[::2], parts[1::2]
        if 0 < len(values) == self._count <= TEMPLATED:
            flags = heads[0].rpartition(b" O")[0].rpartition(b" f")[2]
            if _is_number(flags) and b"\r\n".join((*heads, b"")) == _HIT_HEADS.fill(
                self._count, self._first, tuple(map(len, values)), flags
            ):
                return list(zip(repeat(int(flags)), values))
        return self._read_one_by_one(heads, values)

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

    __slots__ = ("_answers", "_first", "_gaps", "_results", "_whole")

    def __init__(self, results: list[Any], first: int, answers: Answers) -> None:
        self._results = results
        self._gaps = (place for place, known in enumerate(results) if known is None)
        self._whole = results.count(None) == len(results) <= TEMPLATED
        self._first = first
        self._answers = answers

    def read_whole(self, data: bytes) -> Any:
        """Return all answers if `data` is exactly theirs and `MN`, without an error among them."""
        lines = data.split(CRLF)
        count = len(self._results)
        if not self._whole or len(lines) != count + 2 or lines[-2:] != [END, b""]:
            return UNUSUAL
        if b"".join([line[2:] for line in lines[:-2]]) != _TAILS.fill(count, self._first):
            return UNUSUAL
        answers = [self._answers.get(line[:2]) for line in lines[:-2]]
        return UNUSUAL if None in answers else answers

    def take(self, head: Head, value: bytes | None) -> Any:
        """Accept one answer; return all of them at `MN`."""
        if value is not None:
            return UNEXPECTED
        if list(head) == [END]:
            whole = next(self._gaps, None) is None
            return self._results if whole else UNEXPECTED
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
        place = next(self._gaps, None)
        if place is None or token not in {None, b"O%d" % (self._first + place)}:
            return UNEXPECTED
        self._results[place] = answer
        return MORE

    def partial_reply(self, node: str) -> Reply:
        """Return the answers so far; the others are late."""
        return [late_error(node) if known is None else known for known in self._results]
