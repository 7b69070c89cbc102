"""What a command is owed: how many replies of the server, and what they mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Protocol

from shardcache.core.commands import Reply
from shardcache.errors import (
    ConfigurationError,
    NodeError,
    NodeRefusedError,
    NodeTimeoutError,
)

# A parsed reply of the server is bytes, an int, a list or None, hence `Any`.

Refusal = NodeError | ConfigurationError


class More(Enum):
    """What stands for a reply that is not complete."""

    MORE = "more"


MORE: Final = More.MORE


class UnexpectedError(Exception):
    """The server's reply is of no kind that the command can have."""


class PendingReply(Protocol):
    """The reply of one command on its way; the server's parts of it are handed in one by one."""

    @property
    def values(self) -> int:
        """Return how many values the server's next reply is an array of; 0 if it is none."""

    def take(self, raw: Any) -> Reply | More:
        """Take the server's next reply; raise `UnexpectedError` when it cannot be one."""

    def refuse(self, error: Refusal) -> Reply | More:
        """Take an error in place of the server's next reply; its cause has the server's words."""

    def partial_reply(self, node: str) -> Reply:
        """Return what has arrived, with a `NodeTimeoutError` for what has not."""


class SingleReply:
    """A command with one reply of the server.

    `translate` gives what an error reply of this command means, where that is another thing.
    """

    __slots__ = ("_translate", "take")

    values: Final = 0

    def __init__(
        self,
        take: Callable[[Any], Reply],
        translate: Callable[[Refusal], Reply] | None = None,
    ) -> None:
        self.take = take
        self._translate = translate

    def refuse(self, error: Refusal) -> Reply:
        """Return the error, translated."""
        return error if self._translate is None else self._translate(error)

    def partial_reply(self, node: str) -> Reply:
        """Return the error for no reply."""
        return late_error(node)


class BatchReply:
    """A command over many keys: `pieces` are the spans of `replies` that each answer fills.

    What `replies` holds elsewhere was known before anything was sent. `decode` gives the replies
    of one piece. With `arrays` each answer is an array of as many values as its piece is long.
    """

    __slots__ = ("_arrays", "_decode", "_fault", "_pieces", "_replies")

    def __init__(
        self,
        replies: list[Any],
        pieces: Iterable[slice],
        decode: Callable[[Any], list[Any]],
        *,
        arrays: bool,
    ) -> None:
        self._replies = replies
        self._pieces = deque(pieces)
        self._decode = decode
        self._fault: ConfigurationError | None = None
        self._arrays = arrays

    @property
    def values(self) -> int:
        """Return how many values the next answer is an array of; 0 if it is none."""
        piece = self._pieces[0]
        return piece.stop - piece.start if self._arrays else 0

    def take(self, raw: Any) -> Reply | More:
        """Fill the next piece."""
        return self._fill(self._decode(raw))

    def refuse(self, error: Refusal) -> Reply | More:
        """Fill the next piece with the error; one of configuration is the reply to all."""
        piece = self._pieces[0]
        if isinstance(error, ConfigurationError):
            self._fault = error
        return self._fill([error] * (piece.stop - piece.start))

    def partial_reply(self, node: str) -> Reply:
        """Return what has arrived, and the error for no reply where nothing has."""
        missing = late_error(node)
        for piece in self._pieces:
            self._replies[piece] = [missing] * (piece.stop - piece.start)
        return self._replies

    def _fill(self, replies: list[Any]) -> Reply | More:
        self._replies[self._pieces.popleft()] = replies
        if self._pieces:
            return MORE
        return self._fault or self._replies


class PingReply:
    """A ping, and a write behind it that changes nothing: read-only nodes answer pings too."""

    __slots__ = ("_answer",)

    values: Final = 0

    def __init__(self) -> None:
        self._answer: Reply | More = MORE

    def take(self, raw: Any) -> Reply | More:
        """Take the ping's answer, then the write's."""
        if self._answer is MORE:
            self._answer = parse_pong(raw)
            return MORE
        parse_flag(raw)
        return self._answer

    def refuse(self, error: Refusal) -> Reply | More:
        """Return the ping's error; of the write only what says that the node does not serve."""
        if self._answer is MORE:
            self._answer = error
            return MORE
        # A user who may not write this key is alive none the less.
        serving = isinstance(error, NodeRefusedError) or self._answer is not True
        return self._answer if serving else error

    def partial_reply(self, node: str) -> Reply:
        """Return the error for no reply."""
        return late_error(node)


def late_error(node: str) -> NodeTimeoutError:
    """Return the error for a reply that did not come."""
    return NodeTimeoutError("no answer by the deadline", node)


def parse_pong(raw: Any) -> bool:
    """Say yes to the answer to a ping."""
    if raw != b"PONG":
        raise UnexpectedError
    return True


def parse_flag(raw: Any) -> bool:
    """Return the answer that is 0 or 1."""
    if type(raw) is not int or raw not in (0, 1):
        raise UnexpectedError
    return raw == 1
