"""One connection's conversation with Redis, without its socket: RESP2.

RESP2, because every server and proxy speaks it from the first byte. No command here needs what RESP3
adds: maps, pushed messages, a reply to `HELLO`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from secrets import token_bytes
from typing import Any, ClassVar, Final

import hiredis

from shardcache.backends.handlers import Handlers
from shardcache.backends.redis.batches import (
    DEL_LINE,
    DELETED_LINES,
    GET_LINE,
    SET_LINE,
    STORED_LINES,
    ArraysReply,
    LinesReply,
    bulk,
    filled,
    mget_spans,
)
from shardcache.backends.redis.header import (
    BARE,
    BARE_BYTES,
    HEADER_SIZE,
    LAST_VERSION,
    NOTHING_BARE,
    VERSION_SIZE,
    from_redis_reply,
    header_of,
    to_redis,
    to_redis_all,
    white_space,
)
from shardcache.backends.redis.options import RedisOptions
from shardcache.backends.redis.parsing import (
    FIGURES,
    IF_STRING,
    STORED,
    STORED_OR_NOT,
    SWAPPED,
    VALUE,
    VALUE_AND_TOKEN,
    WHETHER,
    digest,
    expected_digest,
    parse_count,
    parse_ok_or_none,
    parse_signed,
    parse_value,
)
from shardcache.backends.redis.reader import (
    LONGEST_SIZE,
    UNLIKE_REPLIES,
)
from shardcache.backends.redis.receiver import Receiver
from shardcache.backends.redis.replies import (
    ListReply,
    PairReply,
    PendingReply,
    PingReply,
    Refusal,
    SingleReply,
    parse_flag,
    parse_pong,
)
from shardcache.backends.redis.scripts import (
    COMPARE_AND_DELETE,
    COMPARE_AND_EXPIRE,
    COMPARE_AND_SET,
    COUNT,
    DELETE_CAS,
    GET_AGED,
    GET_OR_STUB,
    GETS,
    PEEK,
    PERSIST,
    RENEW,
)
from shardcache.backends.transport.coalesce import coalesce
from shardcache.backends.transport.sockets import LARGE
from shardcache.backends.wire import UNUSUAL
from shardcache.core.commands import (
    Acquire,
    Acquired,
    Cas,
    CasKeep,
    Command,
    CommandList,
    CompareAndDelete,
    CompareAndExpire,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    IncrSigned,
    Items,
    Payload,
    Peek,
    Ping,
    Renew,
    Reply,
    ServerStats,
    Set,
    SetMany,
    StubReply,
    Touch,
    When,
    keys_of,
)
from shardcache.core.reserved_keys import PROBES, own_key
from shardcache.core.values.flags import INTEGER_FLAGS, RAW_FLAGS, is_stub, stub
from shardcache.errors import (
    NodeError,
    NotACounterError,
    ValueTooLargeError,
)

Words = tuple[bytes | str, ...]
pack: Final[Callable[[Words], bytes]] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows tuples of one

_is_no_counter = re.compile(
    r"WRONGTYPE |ERR value is not an integer|ERR increment or decrement would overflow"
).match
RANGE: Final = "from 0 to 2**63 - 1"
SIGNED_RANGE: Final = "from -2**63 to 2**63 - 1"

_CONDITIONS: Final = {When.ABSENT: (b"NX",), When.PRESENT: (b"XX",)}


class RedisWire(Receiver):
    """The wire of one connection to the Redis node named `node`."""

    # Each takes its own command type, hence `Any`.
    _encoders: ClassVar[Handlers[Callable[[RedisWire, Any], Sequence[bytes]]]] = Handlers("redis")

    __slots__ = ("_bare", "_version")

    def __init__(self, options: RedisOptions, node: str) -> None:
        super().__init__(options, node)
        self._bare = BARE_BYTES if options.bare_bytes else BARE
        # Each write of a connection has the next version; every connection starts at a random one,
        # without bytes for which readers would have to look at each value.
        first = token_bytes(VERSION_SIZE).translate(UNLIKE_REPLIES)
        self._version = int.from_bytes(first, "big")

    def hello(self) -> bytes:
        """Return the commands for the credentials, the database and the connection's name."""
        words = self._options.greeting()
        self._login = [str(word) for name, *rest in words if name == "AUTH" for word in rest]
        self._unanswered.extend(command for command, *_ in words)
        return b"".join(map(pack, words))

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command` in order, and expect its reply."""
        if type(command) is Get:  # by far the most frequent command; hiredis takes 0.2 µs longer
            sent = (self.start_get(command.key),)
            self._pending.append(VALUE)
            return sent
        return self._encoders[type(command)](self, command)

    def encode_gets(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return the bytes of a `Get` of each key, and expect their replies."""
        sent = filled(GET_LINE, [each for key in keys for each in (len(key), key)])
        self._pending.extend(repeat(VALUE, len(keys)))
        return sent

    def start_get(self, key: bytes) -> bytes:
        """Return the request, whatever the key."""
        return GET_LINE % (len(key), key)

    def end_get(self, data: bytes) -> Reply:
        """Return the payload, or `None` for a miss, else `UNUSUAL`."""
        end = data.find(b"\r\n", 0, LONGEST_SIZE)
        size = len(data) - end - 4
        if data[:end] != b"$%d" % size or data[-2:] != b"\r\n" or size > self._max_value:
            return None if data == b"$-1\r\n" else UNUSUAL
        return from_redis_reply(data, end + 2)

    def expect_get(self) -> None:
        """Expect the reply to the last request, unless `feed` does already."""
        if not self._pending:
            self._pending.append(VALUE)

    def _ask(self, pending: PendingReply, *words: bytes) -> Sequence[bytes]:
        sent = (pack(words),)  # first: if packing runs out of memory, no reply is expected
        self._pending.append(pending)
        return sent

    def _ask_script(
        self, pending: PendingReply, script: bytes, key: bytes, *arguments: bytes
    ) -> Sequence[bytes]:
        return self._ask(pending, b"EVAL", script, b"1", key, *arguments)

    def _ask_nothing(self, replies: list[Any]) -> Sequence[bytes]:
        """Ask for any answer: every command needs one, so that replies stay in order."""
        return self._ask(SingleReply(lambda raw: parse_pong(raw) and replies), b"PING")

    def _ask_lines(
        self, replies: list[Any], answers: Mapping[object, bool], line: bytes, words: list[Any]
    ) -> Sequence[bytes]:
        """Send a `line` for each one or two words, a template; before each word is its length."""
        if not words:
            return self._ask_nothing(replies)
        sent = filled(line, words)
        self._pending.append(LinesReply(replies, answers))
        return sent

    def _encode_payload(self, payload: Payload) -> bytes:
        stored = to_redis(payload, self._next_version(), self._bare)
        self._check_size(len(stored))
        return stored

    def _check_size(self, size: int) -> None:
        """Raise `ValueTooLargeError` for a stored form that the node may not get."""
        if size > self._max_value:
            raise self._oversize_error(size)

    def _oversize_error(self, size: int) -> ValueTooLargeError:
        return ValueTooLargeError(
            f"a value of {size} bytes (at most {self._max_value})", self._node
        )

    def _next_version(self) -> bytes:
        self._version = (self._version + 1) & LAST_VERSION
        return self._version.to_bytes(VERSION_SIZE, "big")

    @_encoders.handles(GetMany)
    def _get_many(self, command: GetMany) -> Sequence[bytes]:
        keys = command.keys
        pieces = list(mget_spans(keys))
        if not pieces:
            return self._ask_nothing([])
        sent: Sequence[bytes] = [pack((b"MGET", *keys[piece])) for piece in pieces]
        chunks = coalesce(sent) if len(sent) > 1 else sent
        read = self._limited_array if self._limited else self._replies.whole_array
        self._pending.append(ArraysReply([None] * len(keys), pieces, self._parse_values, read))
        return chunks

    @_encoders.handles(Gets)
    def _gets(self, command: Gets) -> Sequence[bytes]:
        version, limit = self._next_version(), b"%d" % self._options.max_value_bytes
        number, other = (
            to_redis((flags, b""), version, NOTHING_BARE) for flags in (INTEGER_FLAGS, RAW_FLAGS)
        )
        space = white_space(version) if self._options.bare_json else b""
        other = other if self._options.bare_bytes else b""
        return self._ask_script(VALUE_AND_TOKEN, GETS, command.key, limit, number, space, other)

    @_encoders.handles(GetAged)
    def _get_aged(self, command: GetAged) -> Sequence[bytes]:
        return self._ask_script(PairReply(self._parse_aged), GET_AGED, command.key)

    @_encoders.handles(Peek)
    def _peek(self, command: Peek) -> Sequence[bytes]:
        last = b"%d" % (HEADER_SIZE - 1)
        return self._ask_script(PairReply(self._parse_peeked), PEEK, command.key, last)

    @_encoders.handles(Set)
    def _set(self, command: Set) -> Sequence[bytes]:
        key, payload, ttl, when = command
        if len(payload[1]) > LARGE:
            return self._set_large(command)
        words = (b"SET", key, self._encode_payload(payload), *_ttl_words(ttl))
        if when is When.ALWAYS:  # the hash of an enum takes long
            return self._ask(STORED, *words)
        return self._ask(STORED_OR_NOT, *words, *_CONDITIONS[when])

    def _set_large(self, command: Set) -> Sequence[bytes]:
        """Return the request with the value as a separate piece, so that it is not copied."""
        key, payload, ttl, when = command
        _, data = payload
        header = header_of(payload, self._next_version(), self._bare)
        size = len(header) + len(data)
        self._check_size(size)
        last = [*_ttl_words(ttl), *(() if when is When.ALWAYS else _CONDITIONS[when])]
        first = b"*%d\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b" % (
            *(3 + len(last), len(key), key, size, header),
        )
        self._pending.append(STORED if when is When.ALWAYS else STORED_OR_NOT)
        return first, data, b"\r\n" + b"".join([bulk(word) for word in last])

    @_encoders.handles(SetMany)
    def _set_many(self, command: SetMany) -> Sequence[bytes]:
        items, keys = command.items, keys_of(command)
        payloads = items.payloads() if isinstance(items, Items) else [each for _, each in items]
        stored = to_redis_all(payloads, self._version, self._bare)
        self._version = (self._version + len(keys)) & LAST_VERSION
        replies: list[Reply] = [None] * len(keys)
        sizes = list(map(len, stored))
        if sizes and max(sizes) <= self._max_value:  # by whole lists, in half the time
            words: list[Any] = [b""] * (4 * len(keys))
            words[::4], words[1::4] = map(len, keys), keys
            words[2::4], words[3::4] = sizes, stored
        else:
            words = []
            for place, (key, size, data) in enumerate(zip(keys, sizes, stored, strict=True)):
                if size > self._max_value:
                    replies[place] = self._oversize_error(size)
                else:
                    words += (len(key), key, size, data)
        life = _ttl_words(command.ttl)
        line = SET_LINE % (3 + len(life)) + b"".join(map(bulk, life))
        return self._ask_lines(replies, STORED_LINES, line, words)

    @_encoders.handles(Cas)
    def _cas(self, command: Cas) -> Sequence[bytes]:
        return self._compare_and_set(command, _ttl_words(command.ttl))

    @_encoders.handles(CasKeep)
    def _cas_keep(self, command: CasKeep) -> Sequence[bytes]:
        return self._compare_and_set(command, (b"KEEPTTL",))

    def _compare_and_set(self, command: Cas | CasKeep, expiry: Sequence[bytes]) -> Sequence[bytes]:
        token, stored = expected_digest(command.token), self._encode_payload(command.payload)
        return self._ask_script(SWAPPED, COMPARE_AND_SET, command.key, token, stored, *expiry)

    @_encoders.handles(Delete)
    def _delete(self, command: Delete) -> Sequence[bytes]:
        # Not UNLINK: it frees collections in the background, and these are strings.
        return self._ask(WHETHER, b"DEL", command.key)

    @_encoders.handles(DeleteMany)
    def _delete_many(self, command: DeleteMany) -> Sequence[bytes]:
        replies: list[Reply] = [None] * len(command.keys)
        words: list[Any] = [b""] * (2 * len(command.keys))
        words[::2], words[1::2] = map(len, command.keys), command.keys
        return self._ask_lines(replies, DELETED_LINES, DEL_LINE, words)

    @_encoders.handles(Touch)
    def _touch(self, command: Touch) -> Sequence[bytes]:
        if command.ttl is None:
            return self._ask_script(WHETHER, PERSIST, command.key)
        return self._ask(WHETHER, b"PEXPIRE", command.key, _milliseconds(command.ttl))

    @_encoders.handles(Incr)
    def _incr(self, command: Incr) -> Sequence[bytes]:
        pending = SingleReply(parse_count, partial(self._translate_count_error, RANGE))
        return self._ask_script(pending, COUNT, command.key, b"%d" % command.delta)

    @_encoders.handles(IncrSigned)
    def _incr_signed(self, command: IncrSigned) -> Sequence[bytes]:
        pending = SingleReply(parse_signed, partial(self._translate_count_error, SIGNED_RANGE))
        return self._ask_script(pending, COUNT, command.key, b"%d" % command.delta, b"signed")

    def _translate_count_error(self, numbers: str, error: Refusal) -> Reply:
        """Return `NotACounterError` for a value that is not a counter, otherwise the node's error."""
        if not _is_no_counter(str(error.__cause__)):
            return error
        uncounted = NotACounterError(
            f"the value is not a whole number {numbers}, or would leave that range", self._node
        )
        uncounted.__cause__ = error.__cause__
        return uncounted

    @_encoders.handles(GetOrStub)
    def _get_or_stub(self, command: GetOrStub) -> Sequence[bytes]:
        own = stub(command.mark)
        stored = to_redis(own)  # the mark is unique to this stub
        token = digest(stored)

        def parse_stub_reply(raw: Any) -> StubReply:  # as the server sent it
            payload = parse_value(raw)
            if payload is None:
                return StubReply(None, token, leads=True, stub=own)
            if is_stub(payload):
                return StubReply(None, digest(raw), leads=False, stub=payload)
            return StubReply(payload, digest(raw), leads=False)

        pending = SingleReply(parse_stub_reply)
        return self._ask_script(
            pending, GET_OR_STUB, command.key, stored, _milliseconds(command.ttl)
        )

    @_encoders.handles(Renew)
    def _renew(self, command: Renew) -> Sequence[bytes]:
        token, life = expected_digest(command.token), _milliseconds(command.ttl)
        pending = SingleReply(lambda raw: token if parse_flag(raw) else None)
        return self._ask_script(pending, RENEW, command.key, token, life)

    @_encoders.handles(Acquire)
    def _acquire(self, command: Acquire) -> Sequence[bytes]:
        key, payload, ttl = command
        stored = self._encode_payload(payload)
        acquired = Acquired(digest(stored))
        pending = SingleReply(lambda raw: acquired if parse_ok_or_none(raw) else False)
        words = (b"SET", key, stored, *_ttl_words(ttl), *_CONDITIONS[When.ABSENT])
        return self._ask(pending, *words)

    @_encoders.handles(DeleteCas)
    def _delete_cas(self, command: DeleteCas) -> Sequence[bytes]:
        token = expected_digest(command.token)
        return self._ask_script(IF_STRING, DELETE_CAS, command.key, token)

    @_encoders.handles(CompareAndDelete)
    def _compare_and_delete(self, command: CompareAndDelete) -> Sequence[bytes]:
        return self._ask_script(
            IF_STRING, COMPARE_AND_DELETE, command.key, self._encode_compared(command.payload)
        )

    def _encode_compared(self, payload: Payload) -> bytes:
        return to_redis(payload, bare=self._bare)

    @_encoders.handles(CompareAndExpire)
    def _compare_and_expire(self, command: CompareAndExpire) -> Sequence[bytes]:
        stored, life = self._encode_compared(command.payload), _milliseconds(command.ttl)
        return self._ask_script(IF_STRING, COMPARE_AND_EXPIRE, command.key, stored, life)

    @_encoders.handles(CommandList)
    def _list(self, command: CommandList) -> Sequence[bytes]:
        sent: list[bytes] = []
        replies: list[Any] = []
        pending: list[tuple[int, PendingReply]] = []
        for place, each in enumerate(command.commands):
            try:
                sent += self.encode(each)
            except NodeError as error:
                replies.append(error)
                continue
            replies.append(None)
            pending.append((place, self._pending.pop()))
        if not pending:
            return self._ask_nothing(replies)
        self._pending.append(ListReply(replies, pending))
        return coalesce(sent)

    @_encoders.handles(Ping)
    def _ping(self, command: Ping) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        sent = (pack((b"PING",)) + pack((b"DEL", own_key(PROBES))),)
        self._pending.append(PingReply())
        return sent

    @_encoders.handles(ServerStats)
    def _stats(self, command: ServerStats) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        return self._ask(FIGURES, b"INFO")

    @_encoders.handles(FlushAll)
    def _flush(self, command: FlushAll) -> Sequence[bytes]:  # noqa: ARG002 - it has no fields
        return self._ask(STORED, b"FLUSHDB", b"ASYNC")

    supports: ClassVar[frozenset[type]] = _encoders.supports | {
        Get
    }  # `encode` itself handles `Get`


def _milliseconds(ttl: float | None) -> bytes:
    return b"" if ttl is None else b"%d" % math.ceil(ttl * 1000)


def _ttl_words(ttl: float | None) -> tuple[bytes, ...]:
    return () if ttl is None else (b"PX", _milliseconds(ttl))
