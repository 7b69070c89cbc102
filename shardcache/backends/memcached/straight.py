"""The straight way of small commands that are alone on their connection: no reply is kept to expect.

A request, and the bytes that answer it as a rule: that saves a get a quarter of the client's time, and a
write a seventh. Whatever is not of the usual kind goes the general way (`transport.blocking`), and
`tests/clients/test_straight.py` compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbelow
from typing import Any, ClassVar, Final

from shardcache.backends.expiry import memcached_exptime
from shardcache.backends.memcached.reader import ReplyReader
from shardcache.backends.memcached.replies import (
    DELETED,
    STORED,
    TOKENS,
    Answers,
    CodeReply,
    CounterReply,
    GetReply,
    PendingReply,
    read_count,
    read_get,
    read_large_get,
)
from shardcache.backends.transport.sockets import LARGE
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Command, Delete, Incr, Reply, Set, When
from shardcache.core.keys import is_plain

MODES: Final = {When.ABSENT: b" ME", When.PRESENT: b" MR"}


class StraightWay(ReplyReader):
    """The tokens of a connection, and its requests and replies of the usual kind."""

    __slots__ = ("_answers", "_clock", "_delta", "_small", "_tail", "_token")

    def __init__(self, node: str, max_value: int, wall_clock: Callable[[], float]) -> None:
        super().__init__(node, max_value)
        self._clock = wall_clock
        self._token = randbelow(TOKENS)
        self._small = min(LARGE // 2, max_value)  # bytes of what needs no thought of copies
        self._tail = b""  # the end of the last request that `start` or `start_get` made
        # The answers to the last request that `start` made, or `None` for a number, which `_delta` is in.
        self._answers: Answers | None = STORED
        self._delta = 0

    def start_get(self, key: bytes) -> bytes | None:
        """Return the request for a plain key, or `None` for another."""
        if not is_plain(key):
            return None
        self._token = token = (self._token + 1) % TOKENS
        self._tail = tail = b" O%d\r\n" % token
        return b"mg %b v f%b" % (key, tail)

    def end_get(self, data: bytes) -> Reply:
        """Return the payload, or `None` for a miss, else `UNUSUAL`, as for a value that may be too large."""
        if len(data) <= self._small:
            return read_get(data, self._tail)  # type: ignore[no-any-return]  # a payload, or the mark
        return read_large_get(data, self._tail) if len(data) <= self._max_value else UNUSUAL

    def expect_get(self) -> None:
        """Expect the reply to the last request, unless `feed` does already."""
        if not self._pending:
            self._pending.append(GetReply(self._tail[1:-2]))

    def start(self, command: Command) -> bytes | None:
        """Return the request of a small write about a plain key, or `None` for another command."""
        starter = self._starters.get(type(command))
        return None if starter is None else starter(self, command)

    def end(self, data: bytes) -> Reply:
        """Return the reply to that write if `data` is exactly that and of the usual kind, else `UNUSUAL`."""
        if self._answers is None:
            count: int = read_count(data, self._tail, self._delta)  # or the mark
            return count
        return self._answers.get(data[:2], UNUSUAL) if data[2:] == self._tail else UNUSUAL

    def expect(self) -> None:
        """Expect the reply to that write, unless `feed` does already."""
        if self._pending:
            return
        token, answers = self._tail[1:-2], self._answers
        expected: PendingReply = CounterReply(token, self._node, self._delta)
        self._pending.append(expected if answers is None else CodeReply(token, answers))

    def _start_set(self, command: Set) -> bytes | None:
        key, (flags, data), ttl, when = command
        if len(data) > self._small or not is_plain(key):
            return None
        self._token = token = (self._token + 1) % TOKENS
        mode = b"" if when is When.ALWAYS else MODES[when]  # the hash of an enum takes long
        self._tail = tail = b" O%d\r\n" % token
        self._answers = STORED
        words = (key, len(data), int(flags), memcached_exptime(ttl, self._clock), mode, tail, data)
        return b"ms %b %d F%d T%d%b%b%b\r\n" % words

    def _start_delete(self, command: Delete) -> bytes | None:
        key = command.key
        if not is_plain(key):
            return None
        self._token = token = (self._token + 1) % TOKENS
        self._tail = tail = b" O%d\r\n" % token
        self._answers = DELETED
        return b"md %b%b" % (key, tail)

    def _start_incr(self, command: Incr) -> bytes | None:
        key, delta = command
        if delta < 0 or not is_plain(key):
            return None
        self._token = token = (self._token + 1) % TOKENS
        self._tail = tail = b" O%d\r\n" % token
        self._answers, self._delta = None, delta
        return b"ma %b v D%d%b" % (key, delta, tail)

    # Each takes its own command type, hence `Any`.
    _starters: ClassVar[dict[type, Callable[[Any, Any], bytes | None]]] = {
        Set: _start_set,
        Delete: _start_delete,
        Incr: _start_incr,
    }
