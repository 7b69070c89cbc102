"""memcached's meta protocol without a socket: commands to bytes, bytes to replies.

Source: `doc/protocol.txt` of memcached 1.6. Each command carries an opaque token, which the server
echoes on hits, misses and stores. A reply with another token is an error, so one key's value is never
returned for another key.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Hashable, Sequence
from itertools import count, repeat
from typing import Any, ClassVar

from shardcache.backends.expiry import memcached_exptime
from shardcache.backends.handlers import Handlers
from shardcache.backends.memcached.batches import (
    DELETES,
    GETS,
    QUIET_GETS,
    TEMPLATED,
    BatchReply,
    GetManyReply,
    GetsTogetherReply,
    stores,
)
from shardcache.backends.memcached.reader import DEFAULT_MAX_VALUE
from shardcache.backends.memcached.replies import (
    CAS,
    CRLF,
    DELETED,
    REMOVED,
    STORED,
    TOKENS,
    TOUCHED,
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
    ListReply,
    PeekReply,
    PendingReply,
    RenewReply,
    StatsReply,
    WordReply,
)
from shardcache.backends.memcached.straight import MODES, StraightWay
from shardcache.backends.transport.coalesce import coalesce
from shardcache.backends.transport.sockets import LARGE
from shardcache.backends.wire import Incarnation
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
    ValueTooLargeError,
)


class MemcachedWire(StraightWay):
    """One connection's conversation in the meta protocol."""

    # Each takes its own command type, hence `Any`.
    _encoders: ClassVar[Handlers[Callable[[MemcachedWire, Any], Encoded]]] = Handlers("memcached")

    __slots__ = ("_incarnation",)

    def __init__(
        self,
        node: str = "memcached",
        *,
        max_value: int = DEFAULT_MAX_VALUE,
        wall_clock: Callable[[], float] = time.time,
        incarnation: Incarnation | None = None,
    ) -> None:
        super().__init__(node, max_value, wall_clock)
        self._incarnation = Incarnation() if incarnation is None else incarnation

    def hello(self) -> bytes:
        """Return nothing: memcached needs no greeting."""
        return b""

    @property
    def greeted(self) -> bool:
        """Return `True`: there is no greeting to wait for."""
        return True

    def encode(self, command: Command) -> Sequence[bytes]:
        """Return the bytes of `command` in order, and expect its reply."""
        if type(command) is Get:  # by far the most frequent command
            chunks, pending = self._get(command)
        else:
            chunks, pending = self._encoders[type(command)](self, command)
        self._pending.append(pending)
        return chunks

    def encode_gets(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Return the bytes of a `Get` of each key, and expect their replies."""
        chunks: list[bytes] = []
        for start in range(0, len(keys), TEMPLATED):
            some = keys[start : start + TEMPLATED]
            first = self._reserve_tokens(len(some))
            requests = GETS.fill_for(some, first)
            if requests is not None:
                chunks.append(requests % tuple(some))
                self._pending.extend(repeat(GetsTogetherReply(first, len(some)), len(some)))
            else:
                chunks += (chunk for key in some for chunk in self.encode(Get(key)))
        return chunks

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
        requests = QUIET_GETS.fill_for(keys, first)
        if requests is not None:
            return (requests % tuple(keys) + b"mn\r\n",), GetManyReply(first, len(keys))
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
        expiry = memcached_exptime(ttl, self._clock)
        mode = b"" if when is When.ALWAYS else MODES[when]  # the hash of an enum takes long
        chunks = self._store(key, self._check_size(payload), expiry, token, mode)
        return chunks, CodeReply(b"O%d" % token, STORED)

    @_encoders.handles(SetMany)
    def _set_many(self, command: SetMany) -> Encoded:
        """Send stores that are not quiet: an error line has no token, so only its order tells its key."""
        items, expiry = command.items, memcached_exptime(command.ttl, self._clock)
        first = self._reserve_tokens(len(items))
        requests = stores(items, first, expiry, self._max_value) if items else None
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
        requests = DELETES.fill_for(keys, first)
        if requests is not None:
            return (requests % tuple(keys) + b"mn\r\n",), pending
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


def encode_key(key: bytes) -> tuple[bytes, bytes]:
    """Return a key as memcached takes it, as is, in base64 or hashed, and the flag for base64."""
    if is_plain(key):
        return key, b""
    encoded = b64encode(key)
    return (encoded, b" b") if len(encoded) <= MAX_PLAIN else (hash_name(key), b"")
