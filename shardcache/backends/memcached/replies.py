"""What memcached owes: the replies that commands of the meta protocol wait for, part by part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from shardcache.core.commands import Acquired, Payload, Reply, StubReply
from shardcache.core.values.flags import is_stub
from shardcache.errors import NodeError, NodeRefusedError, NodeTimeoutError, NotACounterError

COUNTER_MAX: Final = 2**63 - 1
MAX_DIGITS: Final = 20  # of 64 bits without a sign
MAX_FIGURES: Final = 2000  # lines of `stats`; a server has about a hundred
TOKENS: Final = 1 << 31
CRLF: Final = b"\r\n"
Head = Sequence[bytes]  # a reply line in its words
_hit = re.compile(rb"VA ([0-9]{1,10}) f([0-9]{1,10}) O([0-9]{1,10})(?: [WXZ])*\r\n").match
_shaped = re.compile(rb"VA ([0-9]{1,10}) f([0-9]{1,10})").fullmatch
# What memcached says of an item being made anew, behind all else: won, stale, already won.
_RECACHE: Final = frozenset({b"W", b"X", b"Z"})
END: Final = b"MN"  # of a batch


class Expectation(Protocol):
    """A reply that is owed: takes lines until it is whole."""

    def whole(self, data: bytes) -> Reply:
        """Give the reply if `data` is all of it and it is of the usual kind, else `None`."""

    def take(self, head: Head, value: bytes | None) -> Any:  # the reply, or one of the two marks
        """Give the reply, `MORE` if it is not whole yet, `NONSENSE` if this cannot be its answer."""

    def too_large(self, head: Head, error: NodeError) -> Any:  # the reply, or one of the two marks
        """Take the error for a value that was not kept, whose line is `head`."""

    def refused(self, error: NodeError) -> Any:  # the reply, or MORE
        """Take a refusal in place of an answer; raise it where it cannot be told whose it is."""

    def partial(self, node: str) -> Reply:
        """Give what has arrived."""


MORE: Final = object()
NONSENSE: Final = object()
TOO_LARGE: Final = bytes(
    bytearray(b"too large")
)  # in place of a value that was not kept: itself alone

Encoded = tuple[Sequence[bytes], Expectation]
Answers = dict[bytes, bool | None]

STORED: Final[Answers] = {b"HD": True, b"NS": False}
CAS: Final[Answers] = {b"HD": True, b"EX": False, b"NS": False, b"NF": None}
REMOVED: Final[Answers] = {b"HD": True, b"EX": False, b"NF": False}
THERE: Final[Answers] = {b"HD": True, b"EN": False, b"NF": False}


class Single:
    """A reply to one command: one line, perhaps with a value."""

    __slots__ = ("token",)

    def __init__(self, token: bytes) -> None:
        self.token = token

    def whole(self, data: bytes) -> Reply:  # noqa: ARG002 - none is usual enough
        """Give `None`: lines are taken one by one."""
        return None

    def too_large(self, head: Head, error: NodeError) -> Any:
        """Return the error where a value is a reply."""
        return NONSENSE if self.take(head, TOO_LARGE) is NONSENSE else error

    def take(self, head: Head, value: bytes | None) -> Any:
        """Return the reply, `NONSENSE` if this cannot be its answer."""
        raise NotImplementedError

    def refused(self, error: NodeError) -> NodeError:
        """Give the refusal as the reply."""
        return error

    def partial(self, node: str) -> NodeError:
        """Give a timeout: a single reply is whole or not there."""
        return _late(node)


class OneGet(Single):
    """The reply to `mg … v f`: a payload, or nothing."""

    __slots__ = ()

    def whole(self, data: bytes) -> Payload | None:
        """Give the payload if `data` is this hit from its first byte to its last, by one match."""
        hit = _hit(data)
        if hit is None:
            return None
        size, flags, token = hit.groups()
        start = hit.end()
        if b"O" + token != self.token or len(data) != start + int(size) + 2:
            return None
        return (int(flags), data[start:-2]) if data.endswith(CRLF) else None

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give the payload, or `None` on a miss."""
        match head:
            case [b"VA", _, flags, self.token, *marks] if (
                flags[:1] == b"f" and flags[1:].isdigit() and _RECACHE.issuperset(marks)
            ):
                return int(flags[1:]), value
            case [b"EN", self.token]:
                return None
        return NONSENSE


class RunToken(NamedTuple):
    """A CAS number, and the run of its server: numbers begin anew with each."""

    number: int
    run: int


class Numbered(Single):
    """A reply that has a CAS number in it."""

    __slots__ = ("_run",)

    def __init__(self, token: bytes, run: int) -> None:
        super().__init__(token)
        self._run = run

    def numbered(self, word: bytes) -> RunToken | None:
        """Give the token of a word such as `c17`, `None` if it is no such word."""
        version = number(word[1:]) if word[:1] == b"c" else None
        return None if version is None else RunToken(version, self._run)


class OneGets(Numbered):
    """The reply to `mg … v f c`: a payload with its CAS number, or nothing."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give the payload and the number, or `None` on a miss."""
        match head:
            case [b"VA", _, flags, cas, self.token, *marks] if flags[
                :1
            ] == b"f" and _RECACHE.issuperset(marks):
                bits, version = number(flags[1:]), self.numbered(cas)
                whole = bits is not None and version is not None
                return ((bits, value), version) if whole else NONSENSE
            case [b"EN", self.token]:
                return None
        return NONSENSE


class OneBegin(Numbered):
    """The reply to `mg … v f c N`: a payload or an empty stub, with a CAS number and who won it."""

    __slots__ = ("_node",)

    def __init__(self, token: bytes, run: int, node: str) -> None:
        super().__init__(token, run)
        self._node = node

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give what was met; a `W` behind the token says that the stub is new."""
        match head:
            case [b"EN", self.token] if value is None:
                # It was to leave a stub, and found no room: its one answer that is not an error.
                return NodeRefusedError("the server says: out of memory storing object", self._node)
            case [b"VA", _, flags, cas, self.token, *marks] if flags[
                :1
            ] == b"f" and _RECACHE.issuperset(marks):
                bits, version = number(flags[1:]), self.numbered(cas)
                if bits is None or version is None or value is None:
                    return NONSENSE
                payload = (bits, value)
                if is_stub(payload):
                    return StubReply(None, version, leads=b"W" in marks, stub=payload)
                return StubReply(payload, version, leads=False)
        return NONSENSE


class OneRenew(Numbered):
    """The reply to `ms … C c`: the new CAS number, or none when another was there."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give the number, or `None`."""
        match head:
            case [b"HD", cas, self.token] if value is None:
                return self.numbered(cas) or NONSENSE
            case [b"EX" | b"NF" | b"NS", *_, self.token] if value is None:
                return None
        return NONSENSE


class OneTake(Numbered):
    """The reply to `ms … ME c`: the CAS number of what was stored, or that something was there."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give the number, or `False`."""
        match head:
            case [b"HD", cas, self.token] if value is None:
                version = self.numbered(cas)
                return NONSENSE if version is None else Acquired(version)
            case [b"NS" | b"EX", *_, self.token] if value is None:
                return False
        return NONSENSE


class One(Single):
    """The reply to a command that is answered by a code alone."""

    __slots__ = ("_answers",)

    def __init__(self, token: bytes, answers: Answers) -> None:
        super().__init__(token)
        self._answers = answers

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give what the code means."""
        match head:
            case [code, self.token, *marks] if value is None and _RECACHE.issuperset(marks):
                return self._answers.get(code, NONSENSE)
        return NONSENSE


class Counter(Single):
    """The reply to `ma … v`: the new number."""

    __slots__ = ("_delta", "_node")

    def __init__(self, token: bytes, node: str, delta: int) -> None:
        super().__init__(token)
        self._node = node
        self._delta = delta

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give the number, or `None` when there is no counter."""
        match head:
            case [b"NF", self.token]:
                return None
            case [b"VA", _, self.token] if value is not None:
                return self._count(number(value.strip()))
        return NONSENSE

    def _count(self, count: int | None) -> Any:
        if count is None:
            return NONSENSE
        # memcached counts to 2**64 - 1 and begins again at 0; a sum is never below what was added.
        if count > COUNTER_MAX or count < self._delta:
            return NotACounterError("the counter passed 2**63 - 1", self._node)
        return count


class Word(Single):
    """The reply to a command that is answered by one known word."""

    __slots__ = ()

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give `True` for the word."""
        return True if value is None and list(head) == [self.token] else NONSENSE


class Stats(Single):
    """The reply to `stats`: lines up to `END`."""

    __slots__ = ("_figures",)

    def __init__(self) -> None:
        super().__init__(b"END")
        self._figures: dict[str, str] = {}

    def take(self, head: Head, value: bytes | None) -> Any:  # noqa: ARG002 - there is none
        """Take one figure, or give all."""
        match head:
            case [self.token]:
                return self._figures
            case [b"STAT", name, *words] if len(self._figures) < MAX_FIGURES:
                figure = b" ".join(words).decode("ascii", "replace")
                self._figures[name.decode("ascii", "replace")] = figure
                return MORE
        return NONSENSE


class ManyGets:
    """The replies to many quiet `mg`: hits by token, in order, up to `MN`."""

    __slots__ = ("_count", "_first", "_from", "_results")

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._count = count
        self._from = 0  # hits come in the order asked: none before this is still to come
        self._results: list[Payload | NodeError | None] = [None] * count

    def whole(self, data: bytes) -> Reply:
        """Give all if `data` is hits that were asked for and `MN`, with no CRLF in a value.

        That takes less than half the time of `scanned`, which has the last word on anything else:
        a value with a CRLF in it is cut too short for the length that stands before it.
        """
        if not data.endswith(CRLF):
            return None
        *parts, end, _ = data.split(CRLF)
        if end != END:
            return None
        results, first, last = self._results, self._first, self._count
        following = self._from
        pairs = iter(parts)
        try:
            for head, value in zip(pairs, pairs, strict=False):
                shape, _, token = head.rpartition(b" O")
                if not token.isdigit() or len(token) > MAX_DIGITS:
                    return None
                place = int(token) - first
                size, flags = _shape(shape)
                if not following <= place < last or len(value) != size:
                    return None
                results[place] = (flags, value)
                following = place + 1
        except _NoShapeError:
            return None
        return results if len(parts) % 2 == 0 else None

    def scanned(self, text: bytes, position: int, largest: int) -> int:
        """Take the whole hits that begin at `position`; give where they end.

        A loop of its own, for a large batch spends most of its time here. It stops at whatever is
        not a whole hit that was asked for, of at most `largest` bytes, which is then no legal reply
        unless it is incomplete or too large.
        """
        results, first, last = self._results, self._first, self._count
        following = self._from
        while hit := _hit(text, position):
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
        self._from = following
        return position

    def take(self, head: Head, value: bytes | None) -> Any:
        """Give all at `MN`; every whole hit was taken by `scanned`."""
        return self._results if value is None and list(head) == [END] else NONSENSE

    def too_large(self, head: Head, error: NodeError) -> Any:
        """Put the error in the place of its key."""
        match head:
            case [b"VA", _, _, token, *_] if token[:1] == b"O" and token[1:].isdigit():
                place = int(token[1:]) - self._first
                if self._from <= place < self._count:
                    self._results[place] = error
                    self._from = place + 1
                    return MORE
        return NONSENSE

    def refused(self, error: NodeError) -> Any:
        """Raise the refusal: quiet commands do not tell whose it is."""
        raise error

    def partial(self, node: str) -> Reply:
        """Give the hits so far; what comes after the last of them is late."""
        gap = self._count - self._from
        return self._results[: self._from] + [_late(node)] * gap


class _NoShapeError(Exception):
    """The head of a reply is not that of a hit without marks."""


@lru_cache(maxsize=4096)
def _shape(text: bytes) -> tuple[int, int]:
    """Return the size and flags of a hit without marks, of which there are few.

    Anything else raises, and so is not kept: a server may send heads of any length.
    """
    parts = _shaped(text)
    if parts is None:
        raise _NoShapeError
    return int(parts[1]), int(parts[2])


class Many:
    """The replies to many commands asked aloud, in order, up to `MN`.

    `results` holds `None` where an answer is to come: one for each of `tokens`.
    """

    __slots__ = ("_answers", "_open", "_results", "_tokens")

    def __init__(self, results: list[Any], tokens: list[bytes], answers: Answers) -> None:
        self._results = results
        self._open = iter([place for place, known in enumerate(results) if known is None])
        self._tokens = iter(tokens)
        self._answers = answers

    def whole(self, data: bytes) -> Reply:  # noqa: ARG002 - as in Single
        """Give `None`: lines are taken one by one."""
        return None

    def take(self, head: Head, value: bytes | None) -> Any:
        """Take one answer, or give all at `MN`."""
        if value is not None:
            return NONSENSE
        if list(head) == [END]:
            whole = next(self._open, None) is None
            return self._results if whole else NONSENSE
        match head:
            case [code, token] if code in self._answers and token == next(self._tokens, None):
                return self._put(self._answers[code])
        return NONSENSE

    def too_large(self, head: Head, error: NodeError) -> Any:  # noqa: ARG002 - it is owed no value
        """Return that this cannot be its answer."""
        return NONSENSE

    def refused(self, error: NodeError) -> Any:
        """Take the refusal for the command whose turn it is."""
        next(self._tokens, None)
        return self._put(error)

    def _put(self, answer: object) -> object:
        place = next(self._open, None)
        if place is None:
            return NONSENSE
        self._results[place] = answer
        return MORE

    def partial(self, node: str) -> Reply:
        """Give the answers so far; the others are late."""
        return [_late(node) if known is None else known for known in self._results]


def _late(node: str) -> NodeTimeoutError:
    return NodeTimeoutError("did not answer in time", node)


def number(text: bytes) -> int | None:
    """Give a number of digits alone, at most 20; `None` for anything else."""
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else None
