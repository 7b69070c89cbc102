"""The replies of one connection to Redis as they arrive, without its socket: accepted, or why not."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import hiredis

from shardcache.backends.redis.header import HEADER_SIZE, from_redis_all
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.parsing import VALUE, parse_left, parse_value
from shardcache.backends.redis.reader import (
    INCOMPLETE,
    LARGEST,
    MalformedReplyError,
    ReplyReader,
    Status,
    TooLarge,
)
from shardcache.backends.redis.refusals import (
    greeting_refusal,
    refusal,
    unasked_refusal,
    without_login,
)
from shardcache.backends.redis.replies import MORE, More, PendingReply, Refusal, UnexpectedError
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import UNREAD, Payload, Reply
from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

_REFUSALS: Final = (hiredis.ReplyError, TooLarge)


class Receiver:
    """What a connection expects, and what has arrived of it."""

    __slots__ = (
        "_limited",
        "_login",
        "_max_value",
        "_node",
        "_options",
        "_pending",
        "_replies",
        "_unanswered",
    )

    def __init__(self, options: RedisOptions, node: str) -> None:
        self._options = options
        self._node = node
        self._replies = ReplyReader(options.max_value_bytes)
        self._max_value = options.max_value_bytes
        self._limited = options.max_value_bytes < LARGEST
        self._pending: deque[PendingReply] = deque()
        self._unanswered: deque[str] = deque()  # the commands of the hello
        self._login: Sequence[str] = ()  # words that no error may quote

    @property
    def greeted(self) -> bool:
        """Return whether the hello was accepted; `feed` raises if it was refused."""
        return not self._unanswered

    @property
    def idle(self) -> bool:
        """Return whether the connection is at a reply boundary: no reply owed, no byte left over."""
        return not (self._pending or self._unanswered) and self._replies.at_rest

    def feed(self, data: bytes) -> list[Reply]:
        """Accept bytes in fragments of any size; return the replies that are now complete.

        Raise the refusal of the hello, or `NodeProtocolError` for bytes that are no expected reply.
        """
        replies: list[Reply] = []
        pending, arrived = self._pending, self._replies
        ready = arrived.ready
        try:
            if len(pending) == 1 and arrived.at_rest and not self._unanswered:
                reply = pending[0].read_whole(data)
                if reply is not UNUSUAL:
                    pending.popleft()
                    return [reply]
            arrived.feed(data)
            if self._unanswered:
                self._greet()
            while pending:
                first = pending[0]
                if ready and first is VALUE and self._take_values(replies):
                    continue
                head = HEADER_SIZE if first is VALUE else 0
                raw = ready.popleft() if ready else arrived.read(first.values, head)
                if raw is INCOMPLETE:
                    return replies
                raw = self._limit_size(raw) if self._limited else raw
                refused = type(raw) in _REFUSALS
                reply = self._take_refusal(raw) if refused else first.take(raw)
                if reply is not MORE:
                    pending.popleft()
                    replies.append(reply)
        except (MalformedReplyError, UnexpectedError, MemoryError) as error:
            raise self._protocol_error(
                str(error) or "sent a reply that does not fit the command"
            ) from error
        if not (arrived.empty or self._unanswered):
            raise self._surplus_error()
        return replies

    def room(self) -> memoryview | None:
        """Return where a socket may write the rest of a large value, if one is arriving; then `take`."""
        return self._replies.room()

    def take(self, count: int) -> list[Reply]:
        """Do what `feed` does for bytes that a socket has written into `room`."""
        self._replies.take(count)
        return self.feed(b"")

    def _take_values(self, replies: list[Reply]) -> bool:
        """Take the replies to gets that have been read, all at once; return whether they are such.

        Of many tasks, most replies are. This takes a third of the time of one by one.
        """
        pending, ready = self._pending, self._replies.ready
        count = min(len(pending), len(ready))
        if self._limited or list(islice(pending, count)) != [VALUE] * count:
            return False
        if Status in map(type, islice(ready, count)):
            return False
        try:
            replies += from_redis_all(islice(ready, count))
        except TypeError:  # an error is among them
            return False
        for _ in range(count):
            ready.popleft()
            pending.popleft()
        return True

    def partial_reply(self) -> Reply:
        """Return what has arrived for the oldest command, with timeouts in the gaps."""
        arrived = self._replies.arriving
        if self._limited:
            arrived = self._limit_size(arrived)
        return self._pending[0].partial_reply(self._node, arrived)

    def _greet(self) -> None:
        while self._unanswered and (raw := self._replies.read(0)) is not INCOMPLETE:
            if isinstance(raw, hiredis.ReplyError):
                raise greeting_refusal(str(raw), self._unanswered[0], self._node)
            if type(raw) is not Status or raw != b"OK":
                raise UnexpectedError
            self._unanswered.popleft()

    def _limit_size(self, raw: Any) -> Any:  # as the server sent it
        """Replace values that are too large by `TooLarge`, also in an array."""
        if type(raw) is list:
            return [self._limit_size(each) for each in raw]
        limit = self._options.max_value_bytes
        return TooLarge(len(raw)) if type(raw) is bytes and len(raw) > limit else raw

    def _limited_array(self, data: bytes, values: int) -> Any:
        return self._limit_size(self._replies.whole_array(data, values))

    def _parse_values(self, raw: Any) -> list[Payload | NodeError | None]:  # as the server sent it
        if type(raw) is not list:
            raise UnexpectedError
        payloads: list[Any]
        try:
            payloads = from_redis_all(raw)
        except TypeError:
            payloads = [
                self._too_large_error(value) if isinstance(value, TooLarge) else parse_value(value)
                for value in raw
            ]
        return payloads

    def _parse_aged(
        self, raw: Any
    ) -> tuple[Payload, float] | NodeError | None:  # as the server sent it
        if type(raw) is not list:
            raise UnexpectedError
        value, left = raw
        if isinstance(value, TooLarge):
            return self._too_large_error(value)
        payload = parse_value(value)
        return None if payload is None else (payload, parse_left(left))

    def _parse_peeked(self, raw: Any) -> Reply:  # as above
        aged = self._parse_aged(raw)
        if not isinstance(aged, tuple):
            return aged
        (flags, _), left = aged
        return (flags, UNREAD), left

    def _take_refusal(self, raw: hiredis.ReplyError | TooLarge) -> Reply | More:
        if isinstance(raw, TooLarge):
            return self._pending[0].refuse(self._too_large_error(raw))
        error = self._refusal_error(raw)
        if isinstance(error, (NodeProtocolError, TooManyConnectionsError)):
            raise error
        return self._pending[0].refuse(error)

    def _refusal_error(self, raw: hiredis.ReplyError) -> Refusal:
        return refusal(without_login(str(raw), self._login), self._node)

    def _too_large_error(self, raw: TooLarge) -> ValueTooLargeError:
        limit = self._options.max_value_bytes
        return ValueTooLargeError(
            f"a value of {raw.size} bytes is stored, more than max_value_bytes={limit}", self._node
        )

    def _surplus_error(self) -> Exception:
        """Return the error for surplus bytes: a server may send a text before it hangs up."""
        try:
            raw = self._replies.read(0)
        except MalformedReplyError:
            raw = None
        said = isinstance(raw, hiredis.ReplyError) and unasked_refusal(str(raw), self._node)
        return said or self._protocol_error("sent bytes that no command asked for")

    def _protocol_error(self, what: str) -> NodeProtocolError:
        return NodeProtocolError(what, self._node)
