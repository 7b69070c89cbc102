"""The replies to commands: how many the server sends, and what they mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar, Final, Protocol

from shardcache.backends.redis.reader import Status
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import Reply
from shardcache.errors import ConfigurationError, NodeError, NodeRefusedError, NodeTimeoutError

# A parsed reply of the server is bytes, a `Status`, an int, a list or None, hence `Any`.

Refusal = NodeError | ConfigurationError


class More(Enum):
    """The mark of a reply that is incomplete."""

    MORE = "more"


MORE: Final = More.MORE


# The lines that most writes are answered by, with what is read of them.
RAW_OF_LINE: Final[dict[bytes, Any]] = {b"+OK": Status(b"OK"), b":1": 1, b":0": 0}
_RAW_OF_REPLY: Final = {line + b"\r\n": raw for line, raw in RAW_OF_LINE.items()} | {
    b"$-1\r\n": None
}


class UnexpectedError(Exception):
    """The server's reply is of the wrong type for the command."""


class PendingReply(Protocol):
    """The reply to a command that was sent; it takes the server's replies one by one."""

    @property
    def values(self) -> int:
        """Return the length of the array that the server sends next; 0 if it sends no array."""

    def read_whole(self, data: bytes) -> Reply:
        """Return the whole reply if `data` is exactly that and of the usual kind, else `UNUSUAL`."""

    def take(self, raw: Any) -> Reply | More:
        """Accept the server's next reply; raise `UnexpectedError` if it cannot belong to this command."""

    def refuse(self, error: Refusal) -> Reply | More:
        """Accept an error in place of the server's next reply; its cause has the server's text."""

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:
        """Return what has arrived, with a `NodeTimeoutError` in each gap.

        `arrived` has the values so far of the array that the server is sending.
        """


class SingleReply:
    """The reply to a command that the server answers once.

    `translate` returns the meaning of an error reply that has a special one for this command.
    """

    __slots__ = ("_translate", "take")

    values: ClassVar[int] = 0

    def __init__(
        self,
        take: Callable[[Any], Reply],
        translate: Callable[[Refusal], Reply] | None = None,
    ) -> None:
        self.take = take
        self._translate = translate

    def read_whole(self, data: bytes) -> Reply:
        """Return the reply if `data` is exactly a short line; most writes are answered by one."""
        if data in _RAW_OF_REPLY:
            return self.take(_RAW_OF_REPLY[data])
        return UNUSUAL

    def refuse(self, error: Refusal) -> Reply:
        """Return the error, translated."""
        return error if self._translate is None else self._translate(error)

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:  # noqa: ARG002 - as below
        """Return a timeout: a part of a single reply is of no use."""
        return late_error(node)


class PairReply(SingleReply):
    """The reply to a command that the server answers once, by an array of two values."""

    __slots__ = ()

    values: ClassVar[int] = 2

    def read_whole(self, data: bytes) -> Reply:  # noqa: ARG002 - as above
        """Return `UNUSUAL`: arrays are read by the reader."""
        return UNUSUAL


class ListReply:
    """The replies to a list of commands, one after another.

    `replies` has a place for each command; `pending` are the places of those that were sent.
    """

    __slots__ = ("_fault", "_pending", "_replies")

    def __init__(self, replies: list[Any], pending: Iterable[tuple[int, PendingReply]]) -> None:
        self._replies = replies
        self._pending = deque(pending)
        self._fault: ConfigurationError | None = None

    @property
    def values(self) -> int:
        """Return the length of the array that the server sends next; 0 if it sends no array."""
        return self._pending[0][1].values

    def read_whole(self, data: bytes) -> Reply:  # noqa: ARG002 - none is usual
        """Return `UNUSUAL`: replies are read one by one."""
        return UNUSUAL

    def take(self, raw: Any) -> Reply | More:
        """Pass the server's reply on to the oldest command."""
        return self._fill(self._pending[0][1].take(raw))

    def refuse(self, error: Refusal) -> Reply | More:
        """Pass the error on to the oldest command; a `ConfigurationError` replaces the whole reply."""
        if isinstance(error, ConfigurationError):
            self._fault = error
        return self._fill(self._pending[0][1].refuse(error))

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:
        """Return what has arrived, with a timeout in each gap."""
        for place, pending in self._pending:
            self._replies[place] = pending.partial_reply(node, arrived)
            arrived = []  # which are of the oldest command
        return self._replies

    def _fill(self, reply: Reply | More) -> Reply | More:
        if reply is MORE:
            return MORE
        place, _ = self._pending.popleft()
        self._replies[place] = reply
        if self._pending:
            return MORE
        return self._fault or self._replies


class PingReply:
    """The reply to a ping and a harmless write after it: read-only nodes answer pings as well."""

    __slots__ = ("_answer",)

    values: Final = 0

    def __init__(self) -> None:
        self._answer: Reply | More = MORE

    def read_whole(self, data: bytes) -> Reply:  # noqa: ARG002 - none is usual
        """Return `UNUSUAL`: the two replies are read one by one."""
        return UNUSUAL

    def take(self, raw: Any) -> Reply | More:
        """Accept the ping's answer, then the write's."""
        if self._answer is MORE:
            self._answer = parse_pong(raw)
            return MORE
        parse_flag(raw)
        return self._answer

    def refuse(self, error: Refusal) -> Reply | More:
        """Accept the ping's error; take the write's only if it means that the node does not serve."""
        if self._answer is MORE:
            self._answer = error
            return MORE
        # The node of a user who may not write this key is alive.
        serving = isinstance(error, NodeRefusedError) or self._answer is not True
        return self._answer if serving else error

    def partial_reply(self, node: str, arrived: list[Any]) -> Reply:  # noqa: ARG002 - as below
        """Return a timeout: a part of a single reply is of no use."""
        return late_error(node)


def late_error(node: str) -> NodeTimeoutError:
    """Return the error for a reply that did not come by its deadline."""
    return NodeTimeoutError("no answer by the deadline", node)


def parse_pong(raw: Any) -> bool:
    """Return `True` for the answer to a ping; raise `UnexpectedError` for another reply."""
    if type(raw) is not Status or raw != b"PONG":
        raise UnexpectedError
    return True


def parse_flag(raw: Any) -> bool:
    """Return whether an answer of 0 or 1 is 1; raise `UnexpectedError` for another reply."""
    if type(raw) is not int or raw not in (0, 1):
        raise UnexpectedError
    return raw == 1
