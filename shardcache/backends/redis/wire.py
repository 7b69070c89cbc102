"""One connection's conversation with Redis, without its socket: RESP2.

RESP2, because every server and proxy speaks it from the first byte on; of what RESP3 adds (maps,
pushed messages, a reply to `HELLO`) no command here has a use for anything.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from hashlib import sha1
from secrets import randbits
from typing import Any, ClassVar, Final

import hiredis

from shardcache.backends.redis.header import (
    BARE,
    BARE_BYTES,
    NOTHING_BARE,
    VERSION_SIZE,
    from_redis,
    to_redis,
    white_space,
)
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.reader import INCOMPLETE, LARGEST, NonsenseError, Replies, TooLarge
from shardcache.backends.redis.refusals import (
    greeting_refusal,
    refusal,
    unasked_refusal,
    without_login,
)
from shardcache.backends.redis.replies import (
    MORE,
    Awaited,
    Batch,
    More,
    One,
    Refusal,
    SignOfLife,
    UnexpectedError,
    flag,
    pong,
)
from shardcache.backends.redis.scripts import (
    COMPARE_AND_DELETE,
    COMPARE_AND_EXPIRE,
    COMPARE_AND_SET,
    COUNT,
    DELETE_CAS,
    GET_OR_STUB,
    GETS,
    PERSIST,
    RENEW,
)
from shardcache.backends.transport.coalesce import joined
from shardcache.core.commands import (
    Acquire,
    Acquired,
    Cas,
    Command,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    Payload,
    Ping,
    Renew,
    Reply,
    ServerStats,
    Set,
    SetMany,
    StubReply,
    Touch,
    When,
)
from shardcache.core.reserved_keys import PROBED
from shardcache.core.values.flags import INTEGER_FLAGS, is_stub, stub
from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    NotACounterError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

# One MGET holds up every other client of the server for as long as it takes, and is one reply: of one
# that is cut off nothing is kept.
MGET_KEYS: Final = 50
MGET_BYTES: Final = 256 * 1024

_LAST_VERSION: Final = (1 << 8 * VERSION_SIZE) - 1

_REFUSALS: Final = (hiredis.ReplyError, TooLarge)

Words = tuple[bytes | str, ...]
pack: Final[Callable[[Words], bytes]] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows tuples of one

_is_no_counter = re.compile(
    r"WRONGTYPE |ERR value is not an integer|ERR increment or decrement would overflow"
).match
_CONDITIONS: Final[dict[When, tuple[bytes, ...]]] = {
    When.ALWAYS: (),
    When.ABSENT: (b"NX",),
    When.PRESENT: (b"XX",),
}


class RedisWire:
    """Commands to bytes and bytes to replies, for one connection to the node named `node`."""

    __slots__ = (
        "_awaited",
        "_bare",
        "_limited",
        "_login",
        "_node",
        "_options",
        "_replies",
        "_unanswered",
        "_version",
    )

    def __init__(self, options: RedisOptions, node: str) -> None:
        self._options = options
        self._node = node
        self._replies = Replies(options.max_value_bytes)
        self._limited = options.max_value_bytes < LARGEST
        self._awaited: deque[Awaited] = deque()
        self._unanswered: deque[str] = deque()  # the commands of the hello
        self._login: Sequence[str] = ()  # what no error may repeat
        self._bare = BARE_BYTES if options.bare_bytes else BARE
        # Each write of a connection has the next; no two connections begin at the same, by chance.
        self._version = randbits(8 * VERSION_SIZE)

    def hello(self) -> bytes:
        """Give the credentials, the choice of database and the connection's name, as configured."""
        words = self._options.greeting()
        self._login = [str(word) for name, *rest in words if name == "AUTH" for word in rest]
        self._unanswered.extend(command for command, *_ in words)
        return b"".join(map(pack, words))

    @property
    def greeted(self) -> bool:
        """Say whether the hello has been answered with yes; `feed` raises when it was a no."""
        return not self._unanswered

    @property
    def idle(self) -> bool:
        """Say whether no reply is owed and no byte is left over."""
        arrived = self._replies
        return not (self._awaited or self._unanswered or arrived.skipping) and arrived.empty

    def encode(self, command: Command) -> Sequence[bytes]:
        """Give the bytes of `command` and expect its reply; raise `ValueTooLargeError` instead."""
        if type(command) is Get:  # by far the most frequent, and hiredis takes 0.2 µs longer
            key = command.key
            sent = (b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key),)
            self._awaited.append(_VALUE)
            return sent
        return self._encoders[type(command)](self, command)

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes as they arrive; give the replies now complete.

        Raise the hello's refusal, or `NodeProtocolError` for what is no answer to what was asked.
        """
        replies: list[Reply] = []
        awaited, arrived = self._awaited, self._replies
        ready = arrived.ready
        try:
            arrived.feed(data)
            if self._unanswered:
                self._greet()
            while awaited:
                first = awaited[0]
                raw = ready.popleft() if ready else arrived.read(first.values)
                if raw is INCOMPLETE:
                    return replies
                if self._limited:
                    raw = self._bounded(raw)
                refused = type(raw) in _REFUSALS
                reply = self._refused(raw) if refused else first.take(raw)
                if reply is not MORE:
                    awaited.popleft()
                    replies.append(reply)
        except (NonsenseError, UnexpectedError, MemoryError) as error:
            raise self._nonsense(str(error) or "no answer to what was asked") from error
        if not (arrived.empty or self._unanswered):
            raise self._surplus()
        return replies

    def partial(self) -> Reply:
        """Give what has arrived for the oldest command, gaps as `NodeTimeoutError`."""
        return self._awaited[0].partial(self._node)

    def _greet(self) -> None:
        while self._unanswered and (raw := self._replies.read(0)) is not INCOMPLETE:
            if isinstance(raw, hiredis.ReplyError):
                raise greeting_refusal(str(raw), self._unanswered[0], self._node)
            if raw != b"OK":
                raise UnexpectedError
            self._unanswered.popleft()

    def _bounded(self, raw: Any) -> Any:  # as the server sent it
        """Return what stands for a value that is too large, or for those in an array."""
        if type(raw) is list:
            return [self._bounded(each) for each in raw]
        limit = self._options.max_value_bytes
        return TooLarge(len(raw)) if type(raw) is bytes and len(raw) > limit else raw

    def _refused(self, raw: hiredis.ReplyError | TooLarge) -> Reply | More:
        if isinstance(raw, TooLarge):
            return self._awaited[0].refuse(self._too_large(raw))
        error = self._error(raw)
        if isinstance(error, (NodeProtocolError, TooManyConnectionsError)):
            raise error
        return self._awaited[0].refuse(error)

    def _error(self, raw: hiredis.ReplyError) -> Refusal:
        return refusal(without_login(str(raw), self._login), self._node)

    def _too_large(self, raw: TooLarge) -> ValueTooLargeError:
        limit = self._options.max_value_bytes
        return ValueTooLargeError(
            f"a value of {raw.size} bytes is stored, more than max_value_bytes={limit}", self._node
        )

    def _surplus(self) -> Exception:
        """Give the error for bytes nobody asked for: some are the server's word before it hangs up."""
        try:
            raw = self._replies.read(0)
        except NonsenseError:
            raw = None
        told = isinstance(raw, hiredis.ReplyError) and unasked_refusal(str(raw), self._node)
        return told or self._nonsense("bytes beyond what was asked")

    def _nonsense(self, what: str) -> NodeProtocolError:
        return NodeProtocolError(what, self._node)

    def _ask(self, awaited: Awaited, *words: bytes) -> Sequence[bytes]:
        sent = (pack(words),)  # first: if there is no memory for it, no reply is owed
        self._awaited.append(awaited)
        return sent

    def _ask_script(
        self, awaited: Awaited, script: bytes, key: bytes, *arguments: bytes
    ) -> Sequence[bytes]:
        return self._ask(awaited, b"EVAL", script, b"1", key, *arguments)

    def _ask_batch(
        self,
        replies: list[Any],  # as `Batch` has them
        pieces: Sequence[slice],
        decode: Callable[[Any], list[Any]],
        sent: Sequence[bytes],
        *,
        arrays: bool = False,
    ) -> Sequence[bytes]:
        if not pieces:  # every command is answered by the server, in its turn
            return self._ask(One(lambda raw: pong(raw) and replies), b"PING")
        chunks = joined(sent)
        self._awaited.append(Batch(replies, pieces, decode, arrays=arrays))
        return chunks

    def _stored(self, payload: Payload) -> bytes:
        stored = to_redis(payload, self._next_version(), self._bare)
        limit = self._options.max_value_bytes
        if len(stored) > limit:
            raise ValueTooLargeError(
                f"a value of {len(stored)} bytes (at most {limit})", self._node
            )
        return stored

    def _next_version(self) -> bytes:
        self._version = (self._version + 1) & _LAST_VERSION
        return self._version.to_bytes(VERSION_SIZE, "big")

    def _get_many(self, command: GetMany) -> Sequence[bytes]:
        keys = command.keys
        pieces = list(_lookups(keys))
        sent = [pack((b"MGET", *keys[piece])) for piece in pieces]
        return self._ask_batch([None] * len(keys), pieces, self._values, sent, arrays=True)

    def _values(self, raw: Any) -> list[Payload | NodeError | None]:  # as the server sent it
        if type(raw) is not list:
            raise UnexpectedError
        try:
            return [None if value is None else from_redis(value) for value in raw]
        except TypeError:
            return [
                self._too_large(value) if isinstance(value, TooLarge) else _value(value)
                for value in raw
            ]

    def _gets(self, command: Gets) -> Sequence[bytes]:
        if self._options.bare_bytes:
            return self._ask(_VALUE_AND_TOKEN, b"GET", command.key)
        version = self._next_version()
        header = to_redis((INTEGER_FLAGS, b""), version, NOTHING_BARE)
        space = white_space(version) if self._options.bare_json else b""
        return self._ask_script(_VALUE_AND_TOKEN, GETS, command.key, header, space)

    def _set(self, command: Set) -> Sequence[bytes]:
        key, payload, ttl, when = command
        words = (b"SET", key, self._stored(payload), *_life(ttl), *_CONDITIONS[when])
        return self._ask(_STORED if when is When.ALWAYS else _STORED_OR_NOT, *words)

    def _set_many(self, command: SetMany) -> Sequence[bytes]:
        life = _life(command.ttl)
        replies: list[Reply] = [None] * len(command.items)
        pieces, sent = [], []
        for place, (key, payload) in enumerate(command.items):
            try:
                sent.append(pack((b"SET", key, self._stored(payload), *life)))
                pieces.append(slice(place, place + 1))
            except ValueTooLargeError as error:
                replies[place] = error
        return self._ask_batch(replies, pieces, lambda raw: [_ok(raw)], sent)

    def _cas(self, command: Cas) -> Sequence[bytes]:
        token = _token(command.token)
        stored, life = self._stored(command.payload), _milliseconds(command.ttl)
        return self._ask_script(_SWAPPED, COMPARE_AND_SET, command.key, token, stored, life)

    def _delete(self, command: Delete) -> Sequence[bytes]:
        # Not UNLINK: what it frees behind the scenes are collections, and ours are strings.
        return self._ask(_WHETHER, b"DEL", command.key)

    def _delete_many(self, command: DeleteMany) -> Sequence[bytes]:
        replies: list[Reply] = [None] * len(command.keys)
        pieces = [slice(place, place + 1) for place in range(len(command.keys))]
        sent = [pack((b"DEL", key)) for key in command.keys]
        return self._ask_batch(replies, pieces, lambda raw: [flag(raw)], sent)

    def _touch(self, command: Touch) -> Sequence[bytes]:
        if command.ttl is None:
            return self._ask_script(_WHETHER, PERSIST, command.key)
        return self._ask(_WHETHER, b"PEXPIRE", command.key, _milliseconds(command.ttl))

    def _incr(self, command: Incr) -> Sequence[bytes]:
        awaited = One(_number, self._not_counted)
        return self._ask_script(awaited, COUNT, command.key, b"%d" % command.delta)

    def _not_counted(self, error: Refusal) -> Reply:
        """Tell a value that is no counter from a node that refuses to count."""
        if not _is_no_counter(str(error.__cause__)):
            return error
        uncounted = NotACounterError(
            "the value is no whole number from 0 to 2**63 - 1, or would rise above", self._node
        )
        uncounted.__cause__ = error.__cause__
        return uncounted

    def _get_or_stub(self, command: GetOrStub) -> Sequence[bytes]:
        own = stub(command.mark)
        stored = to_redis(own)  # no other stub has this mark
        token = _digest(stored)

        def met(raw: Any) -> StubReply:  # whatever the server sent
            payload = _value(raw)
            if payload is None:
                return StubReply(None, token, leads=True, stub=own)
            if is_stub(payload):
                return StubReply(None, _digest(raw), leads=False, stub=payload)
            return StubReply(payload, _digest(raw), leads=False)

        awaited = One(met)
        return self._ask_script(
            awaited, GET_OR_STUB, command.key, stored, _milliseconds(command.ttl)
        )

    def _renew(self, command: Renew) -> Sequence[bytes]:
        token, life = _token(command.token), _milliseconds(command.ttl)
        awaited = One(lambda raw: token if flag(raw) else None)
        return self._ask_script(awaited, RENEW, command.key, token, life)

    def _acquire(self, command: Acquire) -> Sequence[bytes]:
        key, payload, ttl = command
        stored = self._stored(payload)
        taken = Acquired(_digest(stored))
        awaited = One(lambda raw: taken if _ok_or_not(raw) else False)
        words = (b"SET", key, stored, *_life(ttl), *_CONDITIONS[When.ABSENT])
        return self._ask(awaited, *words)

    def _delete_cas(self, command: DeleteCas) -> Sequence[bytes]:
        token = _token(command.token)
        return self._ask_script(_IF_STRING, DELETE_CAS, command.key, token)

    def _compare_and_delete(self, command: CompareAndDelete) -> Sequence[bytes]:
        return self._ask_script(
            _IF_STRING, COMPARE_AND_DELETE, command.key, self._compared(command.payload)
        )

    def _compared(self, payload: Payload) -> bytes:
        return to_redis(payload, bare=self._bare)

    def _compare_and_expire(self, command: CompareAndExpire) -> Sequence[bytes]:
        stored, life = self._compared(command.payload), _milliseconds(command.ttl)
        return self._ask_script(_IF_STRING, COMPARE_AND_EXPIRE, command.key, stored, life)

    def _ping(self, command: Ping) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        sent = (pack((b"PING",)) + pack((b"DEL", PROBED)),)
        self._awaited.append(SignOfLife())
        return sent

    def _stats(self, command: ServerStats) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        return self._ask(_FIGURES, b"INFO")

    def _flush(self, command: FlushAll) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        return self._ask(_STORED, b"FLUSHDB", b"ASYNC")

    # Each takes its own type of command, hence `Any`.
    _encoders: ClassVar[dict[type, Callable[[Any, Any], Sequence[bytes]]]] = {
        GetMany: _get_many,
        Gets: _gets,
        Set: _set,
        SetMany: _set_many,
        Cas: _cas,
        Delete: _delete,
        DeleteMany: _delete_many,
        Touch: _touch,
        Incr: _incr,
        GetOrStub: _get_or_stub,
        Renew: _renew,
        Acquire: _acquire,
        DeleteCas: _delete_cas,
        CompareAndDelete: _compare_and_delete,
        CompareAndExpire: _compare_and_expire,
        Ping: _ping,
        ServerStats: _stats,
        FlushAll: _flush,
    }


def _lookups(keys: Sequence[bytes]) -> Iterator[slice]:
    """Give the spans of keys that go into one MGET each."""
    for start in range(0, len(keys), MGET_KEYS):
        yield from _bounded(keys, slice(start, min(start + MGET_KEYS, len(keys))))


def _bounded(keys: Sequence[bytes], span: slice) -> Iterator[slice]:
    """Halve a span until its keys are short enough together."""
    if span.stop - span.start == 1 or sum(map(len, keys[span])) <= MGET_BYTES:
        yield span
        return
    middle = (span.start + span.stop) // 2
    yield from _bounded(keys, slice(span.start, middle))
    yield from _bounded(keys, slice(middle, span.stop))


def _milliseconds(ttl: float | None) -> bytes:
    return b"" if ttl is None else b"%d" % math.ceil(ttl * 1000)


def _life(ttl: float | None) -> tuple[bytes, ...]:
    return () if ttl is None else (b"PX", _milliseconds(ttl))


# A parsed reply is whatever the server sent, hence `Any`.


def _value(raw: Any) -> Payload | None:
    if type(raw) is bytes:
        return from_redis(raw)
    if raw is None:
        return None
    raise UnexpectedError


def _value_and_token(raw: Any) -> tuple[Payload, bytes] | None:
    payload = _value(raw)
    if payload is None:
        return None
    return payload, _digest(raw)


def _digest(stored: bytes) -> bytes:
    """Give the token of what is stored."""
    return sha1(stored, usedforsecurity=False).hexdigest().encode()


def _token(given: Hashable) -> bytes:
    """Give a digest; one of another backend, as after a failover, is the digest of nothing."""
    return given if isinstance(given, bytes) else b""


def _ok(raw: Any) -> bool:
    if raw != b"OK":
        raise UnexpectedError
    return True


def _ok_or_not(raw: Any) -> bool:
    return raw is not None and _ok(raw)


def _swapped(raw: Any) -> bool | None:
    return None if raw is None else flag(raw)


def _number(raw: Any) -> int | None:
    if raw is None:
        return None
    if type(raw) is not bytes or not raw.isdigit():
        raise UnexpectedError
    return int(raw)


def _figures(raw: Any) -> dict[str, str]:
    if type(raw) is not bytes:
        raise UnexpectedError
    lines = raw.decode(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: figure for name, colon, figure in pairs if colon}


def _if_string(error: Refusal) -> Reply:
    """Give what a refused compare-and-set means: what is no string any more has been changed."""
    return False if str(error.__cause__).startswith("WRONGTYPE ") else error


_VALUE: Final = One(_value)
_VALUE_AND_TOKEN: Final = One(_value_and_token)
_STORED: Final = One(_ok)
_STORED_OR_NOT: Final = One(_ok_or_not)
_SWAPPED: Final = One(_swapped, _if_string)
_WHETHER: Final = One(flag)
_IF_STRING: Final = One(flag, _if_string)
_FIGURES: Final = One(_figures)
