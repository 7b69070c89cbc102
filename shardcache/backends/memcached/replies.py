"""The replies of the meta protocol, and how each is read line by line."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import (
    COUNTER_MAX,
    UNREAD,
    Acquired,
    Reply,
    StubReply,
    Until,
)
from shardcache.core.values.flags import is_stub
from shardcache.errors import NodeError, NodeRefusedError, NodeTimeoutError, NotACounterError

MAX_DIGITS: Final = 20  # of 64 bits without a sign
MAX_FLAGS: Final = 10  # digits of 32 bits
MAX_HEAD: Final = 64  # bytes of the first line of a hit: two numbers and a token
MAX_FIGURES: Final = 2000  # lines of `stats`; a server has about a hundred
TOKENS: Final = 1 << 31
CRLF: Final = b"\r\n"
Head = Sequence[bytes]  # the words of a reply line
match_hit = re.compile(rb"VA ([0-9]{1,10}) f([0-9]{1,10}) O([0-9]{1,10})(?: [WXZ])*\r\n").match
_match_hit_head = re.compile(rb"VA ([0-9]{1,10}) f([0-9]{1,10})").fullmatch
# Marks that may end a reply line about an item that is being recomputed: won, stale, already won.
RECACHE: Final = frozenset({b"W", b"X", b"Z"})
END: Final = b"MN"  # the reply that ends a batch
NEVER: Final = -1  # in place of the seconds left


class PendingReply(Protocol):
    """The reply to a command that was sent; it takes lines until it is complete."""

    def read_whole(self, data: bytes) -> Any:  # the reply, or the mark
        """Return the reply if `data` is exactly that and of the usual kind, else `UNUSUAL`."""

    def take(self, head: Head, value: bytes | None) -> Any:  # the reply, or one of the two marks
        """Return the reply, `MORE` if it is incomplete, `UNEXPECTED` if this line cannot belong to it."""

    def too_large(self, head: Head, error: NodeError) -> Any:  # the reply, or one of the two marks
        """Accept an error in place of a value that is too large; `head` is its line."""

    def refuse(self, error: NodeError) -> Any:  # the reply, or MORE
        """Accept a refusal in place of an answer; raise it if its command is unknown."""

    def partial_reply(self, node: str) -> Reply:
        """Return what has arrived, with a `NodeTimeoutError` in each gap."""


MORE: Final = object()
UNEXPECTED: Final = object()
TOO_LARGE: Final = bytes(bytearray(b"too large"))  # for a value that is too large, by identity

Encoded = tuple[Sequence[bytes], PendingReply]
Answers = dict[bytes, bool | None]

STORED: Final[Answers] = {b"HD": True, b"NS": False}
CAS: Final[Answers] = {b"HD": True, b"EX": False, b"NS": False, b"NF": None}
REMOVED: Final[Answers] = {b"HD": True, b"EX": False, b"NF": False}
DELETED: Final[Answers] = {b"HD": True, b"NF": False}
TOUCHED: Final[Answers] = {b"HD": True, b"EN": False}


class SingleReply:
    """A reply of one line, perhaps with a value."""

    __slots__ = ("token",)

    def __init__(self, token: bytes) -> None:
        self.token = token

    def read_whole(self, data: bytes) -> Any:  # noqa: ARG002 - none is usual
        """Return `UNUSUAL`: lines are read one by one."""
        return UNUSUAL

    def too_large(self, head: Head, error: NodeError) -> Any:
        """Return the error if a value may be the reply."""
        return UNEXPECTED if self.take(head, TOO_LARGE) is UNEXPECTED else error

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the reply, or `UNEXPECTED` if this line cannot be it."""
        raise NotImplementedError

    def refuse(self, error: NodeError) -> NodeError:
        """Return the refusal as the reply."""
        return error

    def partial_reply(self, node: str) -> NodeError:
        """Return a timeout: nothing else of a single reply can have arrived."""
        return late_error(node)


class ListReply:
    """The replies to a list of commands, one after another.

    `replies` has a place for each command; `pending` are the places of those that were sent.
    """

    __slots__ = ("_pending", "_replies")

    def __init__(self, replies: list[Any], pending: Sequence[tuple[int, PendingReply]]) -> None:
        self._replies = replies
        self._pending = deque(pending)

    def read_whole(self, data: bytes) -> Any:  # noqa: ARG002 - none is usual
        """Return `UNUSUAL`: lines are read one by one."""
        return UNUSUAL

    def take(self, head: Head, value: bytes | None) -> Any:
        """Pass the line on to the oldest command."""
        return self._fill(self._pending[0][1].take(head, value))

    def too_large(self, head: Head, error: NodeError) -> Any:
        """Pass the error on to the oldest command."""
        return self._fill(self._pending[0][1].too_large(head, error))

    def refuse(self, error: NodeError) -> Any:
        """Pass the refusal on to the oldest command."""
        return self._fill(self._pending[0][1].refuse(error))

    def partial_reply(self, node: str) -> Reply:
        """Return what has arrived, with a timeout in each gap."""
        for place, pending in self._pending:
            self._replies[place] = pending.partial_reply(node)
        return self._replies

    def _fill(self, reply: Any) -> Any:
        if reply is MORE or reply is UNEXPECTED:
            return reply
        place, _ = self._pending.popleft()
        self._replies[place] = reply
        return MORE if self._pending else self._replies


class GetReply(SingleReply):
    """The reply to `mg … v f`: a payload, or nothing."""

    __slots__ = ()

    def read_whole(self, data: bytes) -> Any:
        """Return the payload if `data` is exactly this hit, or `None` if it is a miss."""
        return read_get(data, b" %b\r\n" % self.token)

    def take_hit(self, text: bytes, position: int, largest: int, replies: list[Reply]) -> int:
        """Append the payload if this hit begins at `position`, and is there whole; return where it ends."""
        hit = match_hit(text, position)
        if hit is None:
            return position
        size, flags, token = hit.groups()
        start = hit.end()
        stop = start + int(size)
        is_ours = b"O" + token == self.token and stop - start <= largest
        if not is_ours or not text.startswith(CRLF, stop):
            return position
        replies.append((int(flags), text[start:stop]))
        return stop + len(CRLF)

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the payload, or `None` on a miss."""
        match head:
            case [b"VA", _, flags, self.token, *marks] if (
                flags[:1] == b"f" and flags[1:].isdigit() and RECACHE.issuperset(marks)
            ):
                return int(flags[1:]), value
            case [b"EN", self.token]:
                return None
        return UNEXPECTED


class CasToken(NamedTuple):
    """A CAS number and the incarnation of its server: a restarted server counts from the start."""

    number: int
    incarnation: int


class TokenReply(SingleReply):
    """A reply that contains a CAS number."""

    __slots__ = ("_incarnation",)

    def __init__(self, token: bytes, incarnation: int) -> None:
        super().__init__(token)
        self._incarnation = incarnation

    def cas_token(self, word: bytes) -> CasToken | None:
        """Return the token of a word such as `c17`, or `None` for another word."""
        version = parse_number(word[1:]) if word[:1] == b"c" else None
        return None if version is None else CasToken(version, self._incarnation)


class GetsReply(TokenReply):
    """The reply to `mg … v f c`: a payload with its CAS number, or nothing."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the payload and its token, or `None` on a miss."""
        match head:
            case [b"VA", _, flags, cas, self.token, *marks] if flags[
                :1
            ] == b"f" and RECACHE.issuperset(marks):
                bits, version = parse_number(flags[1:]), self.cas_token(cas)
                whole = bits is not None and version is not None
                return ((bits, value), version) if whole else UNEXPECTED
            case [b"EN", self.token]:
                return None
        return UNEXPECTED


class AgedReply(SingleReply):
    """The reply to `mg … v f t`: a payload with the seconds left, or nothing."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the payload and its seconds, or `None` on a miss."""
        match head:
            case [b"VA", _, flags, word, self.token, *marks] if RECACHE.issuperset(marks):
                bits, left = parse_word(b"f", flags), parse_left(word)
                if bits is None or left is None:
                    return UNEXPECTED
                return (bits, value), _seconds(left)
            case [b"EN", self.token]:
                return None
        return UNEXPECTED


class PeekReply(SingleReply):
    """The reply to `mg … f s t`: flags, size and seconds left of an item, or nothing."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the flags without bytes, and the seconds left, or `None` on a miss."""
        match head:
            case [b"HD", flags, size, word, self.token, *marks] if (
                value is None and RECACHE.issuperset(marks)
            ):
                bits, length = parse_word(b"f", flags), parse_word(b"s", size)
                left = parse_left(word)
                if bits is None or length is None or left is None:
                    return UNEXPECTED
                return (bits, UNREAD if length else b""), _seconds(left)
            case [b"EN", self.token]:
                return None
        return UNEXPECTED


class GetOrStubReply(TokenReply):
    """The reply to `mg … v f c N`: a payload or a stub, its CAS number, and whether it was won."""

    __slots__ = ("_node",)

    def __init__(self, token: bytes, incarnation: int, node: str) -> None:
        super().__init__(token, incarnation)
        self._node = node

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the value or stub; a `W` after the token marks a stub that this command created."""
        match head:
            case [b"EN", self.token] if value is None:
                # Out of memory for the stub: the only case in which memcached answers with a miss.
                return NodeRefusedError("the server says: out of memory storing object", self._node)
            case [b"VA", _, flags, cas, self.token, *marks] if flags[
                :1
            ] == b"f" and RECACHE.issuperset(marks):
                bits, version = parse_number(flags[1:]), self.cas_token(cas)
                if bits is None or version is None or value is None:
                    return UNEXPECTED
                payload = (bits, value)
                if is_stub(payload):
                    return StubReply(None, version, leads=b"W" in marks, stub=payload)
                return StubReply(payload, version, leads=False)
        return UNEXPECTED


class RenewReply(TokenReply):
    """The reply to `ms … C c`: the new CAS number, or none if the item has changed."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the new token, or `None`."""
        match head:
            case [b"HD", cas, self.token] if value is None:
                return self.cas_token(cas) or UNEXPECTED
            case [b"EX" | b"NF" | b"NS", *_, self.token] if value is None:
                return None
        return UNEXPECTED


class AcquireReply(TokenReply):
    """The reply to `ms … ME c`: the CAS number of the new item, or that the key exists."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the token, or `False`."""
        match head:
            case [b"HD", cas, self.token] if value is None:
                version = self.cas_token(cas)
                return UNEXPECTED if version is None else Acquired(version)
            case [b"NS" | b"EX", *_, self.token] if value is None:
                return False
        return UNEXPECTED


class CodeReply(SingleReply):
    """A reply that is only a return code."""

    __slots__ = ("_answers",)

    def __init__(self, token: bytes, answers: Answers) -> None:
        self.token = token
        self._answers = answers

    def read_whole(self, data: bytes) -> Any:
        """Return the meaning of the code if `data` is exactly its line, without marks."""
        code, _, rest = data.partition(b" ")
        return self._answers.get(code, UNUSUAL) if rest == self.token + CRLF else UNUSUAL

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the meaning of the code."""
        match head:
            case [code, self.token, *marks] if value is None and RECACHE.issuperset(marks):
                return self._answers.get(code, UNEXPECTED)
        return UNEXPECTED


class CounterReply(SingleReply):
    """The reply to `ma … v`: the new number."""

    __slots__ = ("_delta", "_node")

    def __init__(self, token: bytes, node: str, delta: int) -> None:
        self.token = token
        self._node = node
        self._delta = delta

    def read_whole(self, data: bytes) -> Any:
        """Return the number if `data` is exactly its line and its digits."""
        return read_count(data, b" %b\r\n" % self.token, self._delta)

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the number, or `None` if the key is missing."""
        match head:
            case [b"NF", self.token]:
                return None
            case [b"VA", _, self.token] if value is not None:
                return self._count(parse_number(value.strip()))
        return UNEXPECTED

    def _count(self, count: int | None) -> Any:
        if count is None:
            return UNEXPECTED
        # memcached wraps at 2**64: a sum below the addend has wrapped.
        if count > COUNTER_MAX or count < self._delta:
            return NotACounterError("the counter passed 2**63 - 1", self._node)
        return count


class WordReply(SingleReply):
    """A reply that is one known word."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return `True` for the word."""
        return True if value is None and list(head) == [self.token] else UNEXPECTED


class StatsReply(SingleReply):
    """The reply to `stats`: lines up to `END`."""

    __slots__ = ("_figures",)

    def __init__(self) -> None:
        super().__init__(b"END")
        self._figures: dict[str, str] = {}

    def take(self, head: Head, value: bytes | None) -> Any:  # noqa: ARG002 - there is none
        """Accept one figure; return all of them at `END`."""
        match head:
            case [self.token]:
                return self._figures
            case [b"STAT", name, *words] if len(self._figures) < MAX_FIGURES:
                figure = b" ".join(words).decode("ascii", "replace")
                self._figures[name.decode("ascii", "replace")] = figure
                return MORE
        return UNEXPECTED


class ExpiryReply(SingleReply):
    """The replies to `mg … t`, `stats` and `mg … t`: when an item expires, by the server's clock."""

    __slots__ = ("_figures", "_lefts", "_now")

    def __init__(self, token: bytes) -> None:
        super().__init__(token)
        self._lefts: list[int | None] = []  # the seconds left in each line, `None` for a miss
        self._figures = StatsReply()
        self._now: int | None = None  # once all figures have come

    def take(self, head: Head, value: bytes | None) -> Any:
        """Accept a line; return the date at the end, or `None` if the item is not there all the time."""
        if self._lefts and self._now is None:
            figures = self._figures.take(head, value)
            if not isinstance(figures, dict):
                return figures
            self._now = parse_number(figures.get("time", "").encode())
            return UNEXPECTED if self._now is None else MORE
        match head:
            case [b"HD", word, self.token, *marks] if value is None and RECACHE.issuperset(marks):
                left = parse_left(word)
                if left is None:
                    return UNEXPECTED
                self._lefts.append(left)
            case [b"EN", self.token]:
                self._lefts.append(None)
            case _:
                return UNEXPECTED
        return MORE if self._now is None else self._until(self._now, *self._lefts)

    def _until(self, now: int, before: int | None, after: int | None) -> Until | None:
        """Return the date, which is exact if no second of the server ended between the two lines."""
        if before is None or after is None:
            return None
        return Until(0 if after == NEVER else now + after, exact=before == after)

    def refuse(self, error: NodeError) -> Any:
        """Raise the refusal: what follows it would belong to no command."""
        raise error


class NotAHitError(Exception):
    """The reply line is not that of a hit without marks."""


@lru_cache(maxsize=4096)
def parse_hit_head(text: bytes) -> tuple[int, int]:
    """Return the size and flags of a hit without marks. Few combinations occur, so they are cached.

    Anything else raises, and so is not cached: a server may send lines of any length.
    """
    parts = _match_hit_head(text)
    if parts is None:
        raise NotAHitError
    return int(parts[1]), int(parts[2])


def read_get(data: bytes, tail: bytes) -> Any:
    """Return the payload in a whole reply to `mg … v f`, `None` for a miss, else `UNUSUAL`.

    `tail` ends its first line: a blank and the token. Few lines differ in the rest, so most are known.
    """
    head, end, rest = data.partition(tail)
    try:
        size, flags = parse_hit_head(head)
    except NotAHitError:
        return None if head == b"EN" and end and not rest else UNUSUAL
    return (flags, rest[:size]) if rest[size:] == CRLF else UNUSUAL


def read_large_get(data: bytes, tail: bytes) -> Any:
    """Return what `read_get` does, but copy the value once and not twice."""
    place = data.find(tail, 0, MAX_HEAD)
    start = place + len(tail)
    try:
        size, flags = parse_hit_head(data[: max(0, place)])
    except NotAHitError:
        return UNUSUAL
    whole = len(data) == start + size + len(CRLF) and data.endswith(CRLF)
    return (flags, data[start : start + size]) if whole else UNUSUAL


def read_count(data: bytes, tail: bytes, delta: int) -> Any:
    """Return the number in a whole reply to `ma … v` that added `delta`, else `UNUSUAL`.

    `tail` ends its first line: a blank and the token. A number too large to count is unusual.
    """
    head, _, digits = data.partition(tail)
    if digits[-2:] != CRLF or head != b"VA %d" % (len(digits) - 2):
        return UNUSUAL
    count = parse_number(digits.strip())
    return UNUSUAL if count is None or count > COUNTER_MAX or count < delta else count


def late_error(node: str) -> NodeTimeoutError:
    """Return the error for a reply that did not come by its deadline."""
    return NodeTimeoutError("did not answer in time", node)


def parse_left(word: bytes) -> int | None:
    """Return the seconds in a word such as `t30`, `NEVER` for no expiry; `None` for another word."""
    return NEVER if word == b"t-1" else parse_word(b"t", word)


def parse_word(letter: bytes, word: bytes) -> int | None:
    """Return the number after the letter of a flag, such as 30 in `t30`; `None` for another word."""
    return parse_number(word[1:]) if word[:1] == letter else None


def _seconds(left: int) -> float:
    return math.inf if left == NEVER else float(left)


def parse_number(text: bytes) -> int | None:
    """Return a number of at most 20 digits; `None` for anything else."""
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else None
