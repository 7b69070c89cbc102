"""memcached's meta protocol without a socket: commands to bytes, bytes to replies.

Source: `doc/protocol.txt` of memcached 1.6. Each command carries an opaque token, which the server
echoes on hits, misses and stores. A reply with another token is an error, so one key's value is never
returned for another key.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from io import BytesIO
from itertools import count
from secrets import randbelow
from typing import Any, ClassVar, Final

from shardcache.backends.expiry import memcached_exptime
from shardcache.backends.handlers import Handlers
from shardcache.backends.memcached.batches import (
    TEMPLATED,
    BatchReply,
    GetManyReply,
    are_plain,
    deletes,
    first_digits,
    quiet_gets,
    stores,
)
from shardcache.backends.memcached.replies import (
    CAS,
    CRLF,
    DELETED,
    MORE,
    REMOVED,
    STORED,
    TOKENS,
    TOO_LARGE,
    TOUCHED,
    UNEXPECTED,
    AcquireReply,
    AgedReply,
    CasToken,
    CodeReply,
    CounterReply,
    Encoded,
    ExpiryReply,
    GetOrStubReply,
    GetReply,
    GetsReply,
    Head,
    ListReply,
    PeekReply,
    PendingReply,
    RenewReply,
    StatsReply,
    WordReply,
    match_hit,
    parse_number,
    read_get,
)
from shardcache.backends.transport.coalesce import coalesce
from shardcache.backends.transport.sockets import LARGE
from shardcache.backends.wire import UNUSUAL, Incarnation
from shardcache.core.commands import (
    Acquire,
    Cas,
    CasUntil,
    Command,
    CommandList,
    Delete,
    DeleteCas,
    DeleteMany,
    FlushAll,
    Get,
    GetAged,
    GetExpiry,
    GetMany,
    GetOrStub,
    Gets,
    Incr,
    Payload,
    Peek,
    Ping,
    Renew,
    Reply,
    ServerStats,
    Set,
    SetMany,
    Touch,
    When,
)
from shardcache.core.keys import MAX_PLAIN, hash_name, is_plain
from shardcache.core.values.flags import stub
from shardcache.errors import (
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NotACounterError,
    TooManyConnectionsError,
    ValueTooLargeError,
)

MAX_LINE: Final = 4096  # bytes; the longest legal line is a key and a few flags
MAX_VALUE: Final = 1 << 30  # bytes; the largest item limit that a server accepts
DEFAULT_MAX_VALUE: Final = 1 << 20  # bytes; a server's default item limit (-I)
WHOLE: Final = 1 << 22  # bytes of a value for which memory is taken before they have arrived

_MODES: Final = {When.ABSENT: b" ME", When.PRESENT: b" MR"}


class LargeValue:
    """A value that arrives in many pieces; `missing` counts its bytes to come.

    They are collected in one block of the value's size, which becomes the value. If all pieces were kept
    to be joined, the memory for twice the value would be given back to the system after each call, and its
    pages mapped again. A block of more than `WHOLE` bytes grows as pieces arrive: the server may only
    have announced them.
    """

    __slots__ = ("_block", "head", "missing")

    def __init__(self, head: Head, start: bytes, missing: int) -> None:
        self.head = head
        self.missing = missing
        self._block = block = BytesIO()
        block.seek(min(len(start) + missing, WHOLE) - 1)
        block.write(b"\0")
        block.seek(0)
        block.write(start)

    def add(self, data: bytes) -> bytes:
        """Add what has arrived; return the bytes after the value."""
        if len(data) <= self.missing:
            self._block.write(data)
            self.missing -= len(data)
            return b""
        end = self.missing
        self._block.write(data[:end])
        self.missing = 0
        return data[end:]

    def value(self) -> bytes:
        """Return the value, once nothing is missing: the block itself, not a copy."""
        return self._block.getvalue()


class MemcachedWire:
    """One connection's conversation in the meta protocol."""

    # Each takes its own command type, hence `Any`.
    _encoders: ClassVar[Handlers[Callable[[MemcachedWire, Any], Encoded]]] = Handlers("memcached")

    __slots__ = (
        "_clock",
        "_ended",
        "_incarnation",
        "_large",
        "_max_value",
        "_needed",
        "_node",
        "_parts",
        "_parts_size",
        "_pending",
        "_skipped",
        "_tail",
        "_token",
    )

    def __init__(
        self,
        node: str = "memcached",
        *,
        max_value: int = DEFAULT_MAX_VALUE,
        wall_clock: Callable[[], float] = time.time,
        incarnation: Incarnation | None = None,
    ) -> None:
        self._node = node
        self._max_value = max_value
        self._clock = wall_clock
        self._incarnation = Incarnation() if incarnation is None else incarnation
        self._token = randbelow(TOKENS)
        self._tail = b""  # the end of the last request that `start_get` made
        self._pending: deque[PendingReply] = deque()
        self._parts: list[bytes] = []  # what has arrived and is not read yet
        self._parts_size = 0
        self._needed = 0  # bytes that must have arrived before it is worth another look
        self._large: LargeValue | None = None  # the value that is arriving
        self._ended: tuple[Head, bytes] | None = None  # a large value whose CRLF is still to come
        self._skipped = 0  # bytes still to come of a value that is too large

    def hello(self) -> bytes:
        """Return nothing: memcached needs no greeting."""
        return b""

    @property
    def greeted(self) -> bool:
        """Return `True`: there is no greeting to wait for."""
        return True

    @property
    def idle(self) -> bool:
        """Return whether the connection is at a reply boundary: no reply owed, no byte left over."""
        return not (self._pending or self._parts or self._skipped or self._large or self._ended)

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command` in order, and expect its reply."""
        if type(command) is Get:  # by far the most frequent command
            chunks, pending = self._get(command)
        else:
            chunks, pending = self._encoders[type(command)](self, command)
        self._pending.append(pending)
        return chunks

    def start_get(self, key: bytes) -> bytes | None:
        """Return the request for a plain key, or `None` for another."""
        if not is_plain(key):
            return None
        self._token = token = (self._token + 1) % TOKENS
        self._tail = tail = b" O%d\r\n" % token
        return b"mg %b v f%b" % (key, tail)

    def end_get(self, data: bytes) -> Reply:
        """Return the payload, or `None` for a miss, else `UNUSUAL`, as for a value that may be too large."""
        return read_get(data, self._tail) if len(data) <= self._max_value else UNUSUAL

    def expect_get(self) -> None:
        """Expect the reply to the last request, unless `feed` does already."""
        if not self._pending:
            self._pending.append(GetReply(self._tail[1:-2]))

    def feed(self, data: bytes) -> list[Reply]:
        """Accept bytes in fragments of any size; return the replies that are now complete."""
        if self._skipped:
            data = self._skip(data)
        if self._large is not None:
            data = self._add_to_large(self._large, data)
        if self._parts:
            self._parts.append(data)
            self._parts_size += len(data)
            if self._parts_size < self._needed:
                return []
            data = b"".join(self._parts)
            self._parts = []
        pending = self._pending
        # The usual case on a blocking connection; longer data may contain a value that is too large.
        if len(pending) == 1 and len(data) <= self._max_value and self._ended is None:
            reply = pending[0].read_whole(data)
            if reply is not UNUSUAL:
                pending.popleft()
                return [reply]
        return self._parse(data)

    def partial_reply(self) -> Reply:
        """Return what has arrived for the oldest command, with timeouts in the gaps."""
        return self._pending[0].partial_reply(self._node)

    def _parse(self, text: bytes) -> list[Reply]:
        replies: list[Reply] = []
        pending = self._pending
        position, size = self._take_hits(text, replies), len(text)
        self._needed = 0
        scanned: PendingReply | None = None
        while position < size:
            if not pending:
                raise NodeProtocolError("sent a reply that no command asked for", self._node)
            first = pending[0]
            if isinstance(first, (GetManyReply, BatchReply)):
                position = self._scan(first, text, position, again=first is scanned)
                scanned = first
            part = self._next_part(text, position)
            if part is None:
                if self._large is not None:  # which has taken the rest
                    return replies
                break
            head, value, position = part
            if value is TOO_LARGE:
                reply = first.too_large(head, self._too_large_error(head))
            else:
                reply = first.take(head, value)
            if reply is UNEXPECTED:
                reply = first.refuse(self._refusal(head))
            if reply is not MORE:
                replies.append(reply)
                pending.popleft()
        if position < size:
            self._parts = [text[position:]]
            self._parts_size = size - position
        return replies

    def _add_to_large(self, large: LargeValue, data: bytes) -> bytes:
        """Add what has arrived to a large value; return the bytes after it."""
        rest = large.add(data)
        if not large.missing:
            self._ended = large.head, large.value()
            self._large = None
        return rest

    def _scan(
        self, first: GetManyReply | BatchReply, text: bytes, position: int, *, again: bool
    ) -> int:
        """Take what a batch takes of `text` at once, from `position`; return where that ends.

        A run is looked for only once: that takes as long for one line as for all.
        """
        if not again:
            position = first.take_run(text, position, self._max_value)
        if isinstance(first, GetManyReply):
            position = first.scan(text, position, self._max_value)
        return position

    def _take_hits(self, text: bytes, replies: list[Reply]) -> int:
        """Take the whole hits of single gets at the start of `text`; return where they end.

        Of many tasks, most replies are such. One match for each takes half the time of `take`.
        """
        pending, position = self._pending, 0
        while self._ended is None and pending and type(first := pending[0]) is GetReply:
            hit = match_hit(text, position)
            if hit is None:
                break
            size, flags, token = hit.groups()
            start = hit.end()
            stop = start + int(size)
            is_ours = b"O" + token == first.token and stop - start <= self._max_value
            if not is_ours or not text.startswith(CRLF, stop):
                break
            replies.append((int(flags), text[start:stop]))
            pending.popleft()
            position = stop + 2
        return position

    def _next_part(self, text: bytes, position: int) -> tuple[Head, bytes | None, int] | None:
        """Return the words of the line at `position`, its value and their end, or `None` if incomplete."""
        if self._ended is not None:
            return self._end_large(self._ended, text, position)
        end = text.find(CRLF, position, position + MAX_LINE)
        if end < 0:
            if len(text) - position >= MAX_LINE:
                raise NodeProtocolError("sent a line that is too long", self._node)
            return None
        head = text[position:end].split(b" ")
        start = end + 2
        if head[0] != b"VA":
            return head, None, start
        stop = start + self._value_size(head)
        if stop - start > self._max_value:
            self._skipped = stop - start + 2
            return head, TOO_LARGE, len(text) - len(self._skip(text[start:]))
        if len(text) < stop + 2:
            if stop - len(text) > LARGE:
                self._large = LargeValue(head, text[start:], stop - len(text))
            self._needed = stop + 2 - position
            return None
        if not text.startswith(CRLF, stop):
            raise self._length_error()
        return head, text[start:stop], stop + 2

    def _end_large(
        self, ended: tuple[Head, bytes], text: bytes, position: int
    ) -> tuple[Head, bytes, int] | None:
        """Return the line and the value that have arrived, and the end of the CRLF after them."""
        if len(text) - position < len(CRLF):
            self._needed = len(CRLF)
            return None
        if not text.startswith(CRLF, position):
            raise self._length_error()
        self._ended = None
        head, value = ended
        return head, value, position + len(CRLF)

    def _skip(self, data: bytes) -> bytes:
        """Skip the rest of a value that is too large; return the bytes after it."""
        end = self._skipped
        for place, letter in ((end - 2, CRLF[:1]), (end - 1, CRLF[1:])):
            if place >= 0 and data[place : place + 1] not in {letter, b""}:
                raise self._length_error()
        self._skipped = max(0, end - len(data))
        return data[end:]

    def _length_error(self) -> NodeProtocolError:
        return NodeProtocolError("sent a value longer or shorter than announced", self._node)

    def _too_large_error(self, head: Head) -> ValueTooLargeError:
        return ValueTooLargeError(
            f"a value of {int(head[1])} bytes is stored, more than max_value_bytes={self._max_value}",
            self._node,
        )

    def _value_size(self, head: Head) -> int:
        size = parse_number(head[1]) if len(head) > 1 else None
        if size is None or size > MAX_VALUE:
            raise NodeProtocolError("announced a value of invalid size", self._node)
        return size

    def _refusal(self, head: Head) -> NodeError:
        """Return the error of a reply that is not an answer; raise it if the connection must be closed."""
        kind, text = head[0], b" ".join(head[1:]).decode("ascii", "replace")[:200]
        if kind == b"SERVER_ERROR":
            if "too large" in text:
                return ValueTooLargeError("the value is too large for the server", self._node)
            return NodeRefusedError(f"the server says: {text}", self._node)
        if kind == b"CLIENT_ERROR" and "non-numeric" in text:
            return NotACounterError("the value is not a counter", self._node)
        if kind == b"CLIENT_ERROR" and "too large" in text:
            return ValueTooLargeError("the value is too large for the server", self._node)
        if kind == b"ERROR" and "connections" in text:
            raise TooManyConnectionsError("has too many connections", self._node)
        raise NodeProtocolError(_unexpected_text(kind, text), self._node)

    def _next_token(self) -> int:
        self._token = token = (self._token + 1) % TOKENS
        return token

    def _reserve_tokens(self, count: int) -> int:
        """Reserve `count` tokens for a batch, from the next that ends in zeros; return the first."""
        first = self._token + TEMPLATED - self._token % TEMPLATED
        if first + count > TOKENS:
            first = TEMPLATED
        self._token = first + count - 1
        return first

    def _check_size(self, payload: Payload) -> Payload:
        if len(payload[1]) > self._max_value:
            raise ValueTooLargeError(
                f"{len(payload[1])} bytes, more than max_value_bytes={self._max_value}", self._node
            )
        return payload

    @_encoders.handles(Get)
    def _get(self, command: Get) -> Encoded:
        self._token = number = (self._token + 1) % TOKENS
        token = b"O%d" % number
        key = command.key
        if is_plain(key):
            return (b"mg %b v f %b\r\n" % (key, token),), GetReply(token)
        name, binary = encode_key(key)
        return (b"mg %b v f %b%b\r\n" % (name, token, binary),), GetReply(token)

    @_encoders.handles(Gets)
    def _gets(self, command: Gets) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        return (b"mg %s v f c O%d%s\r\n" % (name, token, binary),), GetsReply(
            b"O%d" % token, self._incarnation.number
        )

    @_encoders.handles(GetAged)
    def _get_aged(self, command: GetAged) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        return (b"mg %s v f t O%d%s\r\n" % (name, token, binary),), AgedReply(b"O%d" % token)

    @_encoders.handles(Peek)
    def _peek(self, command: Peek) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        return (b"mg %s f s t O%d%s\r\n" % (name, token, binary),), PeekReply(b"O%d" % token)

    @_encoders.handles(GetMany)
    def _get_many(self, command: GetMany) -> Encoded:
        """Send quiet gets, whose misses cost no bytes, and `mn` after them."""
        keys = command.keys
        first = self._reserve_tokens(len(keys))
        if are_plain(keys):
            requests = quiet_gets(keys, first_digits(first))
            return (requests + b"mn\r\n",), GetManyReply(first, len(keys))
        lines = [
            b"mg %s v f q O%d%s\r\n" % (name, token, binary)
            for (name, binary), token in zip(map(encode_key, keys), count(first))
        ]
        lines.append(b"mn\r\n")
        return coalesce(lines), GetManyReply(first, len(keys))

    @_encoders.handles(Set)
    def _set(self, command: Set) -> Encoded:
        key, payload, ttl, when = command
        self._token = token = (self._token + 1) % TOKENS
        mode = b"" if when is When.ALWAYS else _MODES[when]  # the hash of an enum takes long
        expiry = memcached_exptime(ttl, self._clock)
        chunks = self._store(key, self._check_size(payload), expiry, token, mode)
        return chunks, CodeReply(b"O%d" % token, STORED)

    @_encoders.handles(SetMany)
    def _set_many(self, command: SetMany) -> Encoded:
        """Send stores that are not quiet: an error line has no token, so only its order tells its key."""
        items, expiry = command.items, memcached_exptime(command.ttl, self._clock)
        first = self._reserve_tokens(len(items))
        digits = first_digits(first)
        requests = stores(items, digits, expiry, self._max_value) if items else None
        if requests is not None:
            return (requests + b"mn\r\n",), BatchReply([None] * len(items), first, STORED)
        blocks: list[bytes] = []
        results: list[Any] = []
        for token, (key, payload) in enumerate(items, first):
            if len(payload[1]) > self._max_value:
                results.append(ValueTooLargeError("more than max_value_bytes", self._node))
                continue
            blocks += self._store(key, payload, expiry, token, b"")
            results.append(None)
        return self._batch(blocks, BatchReply(results, first, STORED))

    def _batch(self, blocks: list[bytes], pending: BatchReply) -> Encoded:
        """End a batch by `mn`, whose answer ends the reply, even if nothing else is sent."""
        blocks.append(b"mn\r\n")
        return coalesce(blocks), pending

    def _store(
        self, key: bytes, payload: Payload, expiry: int, token: int, mode: bytes
    ) -> Sequence[bytes]:
        """Return the request of a store; a large value is a separate piece, so that it is not copied."""
        name, binary = encode_key(key)
        flags, data = payload
        words = (name, len(data), int(flags), expiry, mode, token, binary)
        if len(data) > LARGE:
            return b"ms %s %d F%d T%d%s O%d%s\r\n" % words, data, CRLF
        return (b"ms %s %d F%d T%d%s O%d%s\r\n%s\r\n" % (*words, data),)

    @_encoders.handles(Cas)
    def _cas(self, command: Cas) -> Encoded:
        return self._compare_and_set(command, memcached_exptime(command.ttl, self._clock))

    @_encoders.handles(CasUntil)
    def _cas_until(self, command: CasUntil) -> Encoded:
        return self._compare_and_set(command, command.until.date)

    def _compare_and_set(self, command: Cas | CasUntil, expiry: int) -> Encoded:
        token = self._next_token()
        payload = self._check_size(command.payload)
        mode = b" C%d" % self._cas_number(command.token)
        chunks = self._store(command.key, payload, expiry, token, mode)
        return chunks, CodeReply(b"O%d" % token, CAS)

    @_encoders.handles(GetExpiry)
    def _get_expiry(self, command: GetExpiry) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        read = b"mg %s t O%d%s\r\n" % (name, token, binary)
        return (read + b"stats\r\n" + read,), ExpiryReply(b"O%d" % token)

    @_encoders.handles(GetOrStub)
    def _get_or_stub(self, command: GetOrStub) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        life = memcached_exptime(command.ttl, self._clock)
        line = b"mg %s v f c N%d O%d%s\r\n" % (name, life, token, binary)
        return (line,), GetOrStubReply(b"O%d" % token, self._incarnation.number, self._node)

    @_encoders.handles(Renew)
    def _renew(self, command: Renew) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        life = memcached_exptime(command.ttl, self._clock)
        version = self._cas_number(command.token)
        # The stub has a new CAS number now; a follower recognizes it by the mark.
        flags, data = stub(command.mark)
        block = b"ms %s %d F%d T%d C%d c O%d%s\r\n%s\r\n" % (
            name,
            len(data),
            flags,
            life,
            version,
            token,
            binary,
            data,
        )
        return (block,), RenewReply(b"O%d" % token, self._incarnation.number)

    @_encoders.handles(Acquire)
    def _acquire(self, command: Acquire) -> Encoded:
        token = self._next_token()
        payload = self._check_size(command.payload)
        expiry = memcached_exptime(command.ttl, self._clock)
        chunks = self._store(command.key, payload, expiry, token, b" ME c")
        return chunks, AcquireReply(b"O%d" % token, self._incarnation.number)

    def _cas_number(self, token: Hashable) -> int:
        """Return the CAS number of a token, or 0, which no item has.

        A token of another backend, or of another incarnation of the server, has 0.
        """
        if isinstance(token, CasToken) and token.incarnation == self._incarnation.number:
            return token.number
        return 0

    @_encoders.handles(DeleteCas)
    def _delete_cas(self, command: DeleteCas) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        line = b"md %s C%d O%d%s\r\n" % (name, self._cas_number(command.token), token, binary)
        return (line,), CodeReply(b"O%d" % token, REMOVED)

    @_encoders.handles(Delete)
    def _delete(self, command: Delete) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        return (b"md %s O%d%s\r\n" % (name, token, binary),), CodeReply(b"O%d" % token, DELETED)

    @_encoders.handles(DeleteMany)
    def _delete_many(self, command: DeleteMany) -> Encoded:
        keys = command.keys
        first = self._reserve_tokens(len(keys))
        pending = BatchReply([None] * len(keys), first, DELETED)
        if are_plain(keys):
            return (deletes(keys, first_digits(first)) + b"mn\r\n",), pending
        names = map(encode_key, keys)
        lines = [
            b"md %s O%d%s\r\n" % (name, token, binary)
            for token, (name, binary) in enumerate(names, first)
        ]
        return self._batch(lines, pending)

    @_encoders.handles(Touch)
    def _touch(self, command: Touch) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        expiry = memcached_exptime(command.ttl, self._clock)
        return (b"mg %s T%d O%d%s\r\n" % (name, expiry, token, binary),), CodeReply(
            b"O%d" % token, TOUCHED
        )

    @_encoders.handles(Incr)
    def _incr(self, command: Incr) -> Encoded:
        token = self._next_token()
        name, binary = encode_key(command.key)
        mode = b" MD" if command.delta < 0 else b""
        line = b"ma %s v D%d O%d%s%s\r\n" % (name, abs(int(command.delta)), token, mode, binary)
        return (line,), CounterReply(b"O%d" % token, self._node, command.delta)

    @_encoders.handles(CommandList)
    def _list(self, command: CommandList) -> Encoded:
        blocks: list[bytes] = []
        replies: list[Any] = []
        pending: list[tuple[int, PendingReply]] = []
        for place, each in enumerate(command.commands):
            try:
                chunks, expected = self._encoders[type(each)](self, each)
            except NodeError as error:
                replies.append(error)
                continue
            replies.append(None)
            blocks += chunks
            pending.append((place, expected))
        if not pending:
            return self._batch([], BatchReply(replies, 0, STORED))
        return coalesce(blocks), ListReply(replies, pending)

    @_encoders.handles(Ping)
    def _ping(self, _: Ping) -> Encoded:
        return (b"mn\r\n",), WordReply(b"MN")

    @_encoders.handles(FlushAll)
    def _flush(self, _: FlushAll) -> Encoded:
        return (b"flush_all\r\n",), WordReply(b"OK")

    @_encoders.handles(ServerStats)
    def _stats(self, _: ServerStats) -> Encoded:
        return (b"stats\r\n",), StatsReply()

    supports: ClassVar[frozenset[type]] = _encoders.supports


def _unexpected_text(kind: bytes, text: str) -> str:
    """Return an explanation of an answer that makes no sense, by its first word."""
    if kind == b"ERROR":
        return (
            "does not know the meta protocol of memcached 1.6: for older servers and proxies use"
            " pymemcache://"
        )
    if kind == b"CLIENT_ERROR" and "unauthenticated" in text:
        return "requires authentication (memcached -Y), which shardcache does not support"
    if kind.startswith(b"-"):
        return "answers like Redis: for a Redis node use redis://"
    return "sent a reply that does not fit the command"


def encode_key(key: bytes) -> tuple[bytes, bytes]:
    """Return a key as memcached takes it, as is, in base64 or hashed, and the flag for base64."""
    if is_plain(key):
        return key, b""
    encoded = b64encode(key)
    return (encoded, b" b") if len(encoded) <= MAX_PLAIN else (hash_name(key), b"")
