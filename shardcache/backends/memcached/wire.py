"""memcached's meta protocol without a socket: commands to bytes, bytes to replies.

Source: the `doc/protocol.txt` of memcached 1.6. Every command carries an opaque token which the
server echoes on hits, misses and stores; a reply of another token is an error, so that one key's
value can never be given for another.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from secrets import randbelow
from typing import Any, ClassVar, Final

from shardcache.backends.expiry import memcached_exptime
from shardcache.backends.memcached.replies import (
    CAS,
    CRLF,
    MORE,
    NONSENSE,
    REMOVED,
    STORED,
    THERE,
    TOKENS,
    TOO_LARGE,
    Counter,
    Encoded,
    Expectation,
    Head,
    Many,
    ManyGets,
    One,
    OneBegin,
    OneGet,
    OneGets,
    OneRenew,
    OneTake,
    RunToken,
    Stats,
    Word,
    number,
)
from shardcache.backends.transport.coalesce import joined
from shardcache.backends.wire import Incarnation
from shardcache.core.commands import (
    Acquire,
    Cas,
    Command,
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
    UnsupportedError,
    ValueTooLargeError,
)

MAX_LINE: Final = 4096  # bytes; the longest legal line is a key and a few flags
MAX_VALUE: Final = 1 << 30  # bytes; the most that a server can be told to take
DEFAULT_MAX_VALUE: Final = 1 << 20  # bytes; a server's item limit unless it was started with -I

_MODES: Final = {When.ALWAYS: b"", When.ABSENT: b" ME", When.PRESENT: b" MR"}

# What asks quietly for the first, the second, … key of a batch, with the last digits of its token
# and "@" for all digits before: to fill this in costs a fifth of writing each line.
TEMPLATED: Final = 1000  # keys
_QUIET_GETS: Final = b"".join(b"mg %%b v f q O@%03d\r\n" % place for place in range(TEMPLATED))
_QUIET_GET_SIZE: Final = len(_QUIET_GETS) // TEMPLATED

_all_plain = re.compile(rb"[!-~]*").fullmatch


class MemcachedWire:
    """One connection's conversation in the meta protocol."""

    __slots__ = (
        "_buffer",
        "_clock",
        "_expected",
        "_max_value",
        "_need",
        "_node",
        "_runs",
        "_skipped",
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
        self._runs = Incarnation() if incarnation is None else incarnation
        self._token = randbelow(TOKENS)
        self._expected: deque[Expectation] = deque()
        self._buffer = bytearray()
        self._need = 0
        self._skipped = 0  # bytes still to come of a value that is too large to be read

    def hello(self) -> bytes:
        """Give nothing: memcached is ready at once."""
        return b""

    @property
    def greeted(self) -> bool:
        """Say that there is no greeting to wait for."""
        return True

    @property
    def idle(self) -> bool:
        """Say whether no reply is owed and no byte is left over: a reply boundary."""
        return not (self._expected or self._buffer or self._skipped)

    def encode(self, command: Command) -> Sequence[bytes]:
        """Give the bytes of `command` in order, and expect its reply next."""
        encoder = self._encoders.get(type(command))
        if encoder is None:
            raise UnsupportedError(f"memcached does not know {type(command).__name__}")
        chunks, expectation = encoder(self, command)
        self._expected.append(expectation)
        return chunks

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes as they arrive, in fragments of any size; give the replies now complete."""
        if self._skipped:
            data = self._skip(data)
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return []
            data = bytes(buffer)
            buffer.clear()
        expected = self._expected
        # As nearly always on a connection that blocks; what is longer may be too large a value.
        if len(expected) == 1 and len(data) <= self._max_value:
            reply = expected[0].whole(data)
            if reply is not None:
                expected.popleft()
                return [reply]
        return self._parse(data)

    def partial(self) -> Reply:
        """Give what has arrived for the oldest command over many keys, gaps as timeouts."""
        return self._expected[0].partial(self._node)

    def _parse(self, text: bytes) -> list[Reply]:
        replies: list[Reply] = []
        expected = self._expected
        position, size = 0, len(text)
        self._need = 0
        while position < size:
            if not expected:
                raise NodeProtocolError("sent what nobody asked for", self._node)
            first = expected[0]
            if type(first) is ManyGets:
                position = first.scanned(text, position, self._max_value)
            part = self._part(text, position)
            if part is None:
                break
            head, value, position = part
            if value is TOO_LARGE:
                reply = first.too_large(head, self._too_large(head))
            else:
                reply = first.take(head, value)
            if reply is NONSENSE:
                reply = first.refused(self._refusal(head))
            if reply is not MORE:
                replies.append(reply)
                expected.popleft()
        if position < size:
            self._buffer += text[position:]
        return replies

    def _part(self, text: bytes, position: int) -> tuple[Head, bytes | None, int] | None:
        """Give the line at `position` in its words, its value, and where both end, once whole."""
        end = text.find(CRLF, position, position + MAX_LINE)
        if end < 0:
            if len(text) - position >= MAX_LINE:
                raise NodeProtocolError("sent a line without end", self._node)
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
            self._need = stop + 2 - position
            return None
        if not text.startswith(CRLF, stop):
            raise self._misfit()
        return head, text[start:stop], stop + 2

    def _skip(self, data: bytes) -> bytes:
        """Return what comes behind the value that is not kept, once its end has arrived."""
        end = self._skipped
        for place, letter in ((end - 2, CRLF[:1]), (end - 1, CRLF[1:])):
            if place >= 0 and data[place : place + 1] not in {letter, b""}:
                raise self._misfit()
        self._skipped = max(0, end - len(data))
        return data[end:]

    def _misfit(self) -> NodeProtocolError:
        return NodeProtocolError("sent a value of another length", self._node)

    def _too_large(self, head: Head) -> ValueTooLargeError:
        return ValueTooLargeError(
            f"a value of {int(head[1])} bytes is stored, more than max_value_bytes={self._max_value}",
            self._node,
        )

    def _value_size(self, head: Head) -> int:
        size = number(head[1]) if len(head) > 1 else None
        if size is None or size > MAX_VALUE:
            raise NodeProtocolError("sent a value of no possible length", self._node)
        return size

    def _refusal(self, head: Head) -> NodeError:
        """Give the error of a reply that is no answer; raise it if the connection is lost by it."""
        kind, text = head[0], b" ".join(head[1:]).decode("ascii", "replace")[:200]
        if kind == b"SERVER_ERROR":
            if "too large" in text:
                return ValueTooLargeError("the value is too large for the server", self._node)
            return NodeRefusedError(f"the server says: {text}", self._node)
        if kind == b"CLIENT_ERROR" and "non-numeric" in text:
            return NotACounterError("the value is no counter", self._node)
        if kind == b"CLIENT_ERROR" and "too large" in text:
            return ValueTooLargeError("the value is too large for the server", self._node)
        if kind == b"ERROR" and "connections" in text:
            raise TooManyConnectionsError("has too many connections", self._node)
        raise NodeProtocolError(_nonsense(kind, text), self._node)

    def _next_token(self) -> int:
        self._token = token = (self._token + 1) % TOKENS
        return token

    def _tokens_in_step(self, count: int) -> int:
        """Give the first of `count` tokens for a batch: the next that ends in zeros."""
        first = self._token + TEMPLATED - self._token % TEMPLATED
        if first + count > TOKENS:
            first = TEMPLATED
        self._token = first + count - 1
        return first

    def _checked(self, payload: Payload) -> Payload:
        if len(payload[1]) > self._max_value:
            raise ValueTooLargeError(
                f"{len(payload[1])} bytes, more than max_value_bytes={self._max_value}", self._node
            )
        return payload

    def _get(self, command: Get) -> Encoded:
        self._token = number = (self._token + 1) % TOKENS
        token = b"O%d" % number
        key = command.key
        if is_plain(key):
            return (b"mg %b v f %b\r\n" % (key, token),), OneGet(token)
        name, binary = spelled(key)
        return (b"mg %b v f %b%b\r\n" % (name, token, binary),), OneGet(token)

    def _gets(self, command: Gets) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        return (b"mg %s v f c O%d%s\r\n" % (name, token, binary),), OneGets(
            b"O%d" % token, self._runs.number
        )

    def _get_many(self, command: GetMany) -> Encoded:
        """Ask quietly, so that misses cost no bytes, closed by `mn`."""
        keys = command.keys
        first = self._tokens_in_step(len(keys))
        if (
            len(keys) <= TEMPLATED
            and max(map(len, keys), default=0) <= MAX_PLAIN
            and _all_plain(b"".join(keys))
        ):
            template = _QUIET_GETS[: len(keys) * _QUIET_GET_SIZE]
            requests = template.replace(b"@", b"%d" % (first // TEMPLATED)) % tuple(keys)
            return (requests + b"mn\r\n",), ManyGets(first, len(keys))
        lines = [
            b"mg %s v f q O%d%s\r\n" % (name, token, binary)
            for (name, binary), token in zip(map(spelled, keys), count(first))
        ]
        lines.append(b"mn\r\n")
        return joined(lines), ManyGets(first, len(keys))

    def _set(self, command: Set) -> Encoded:
        token = self._next_token()
        payload = self._checked(command.payload)
        block = self._store(command.key, payload, command.ttl, token, _MODES[command.when])
        return (block,), One(b"O%d" % token, STORED)

    def _set_many(self, command: SetMany) -> Encoded:
        """Ask each aloud: an error line has no token, so its place must tell whose it is."""
        blocks, tokens = [], []
        results: list[Any] = []
        for key, payload in command.items:
            if len(payload[1]) > self._max_value:
                results.append(ValueTooLargeError("more than max_value_bytes", self._node))
                continue
            token = self._next_token()
            blocks.append(self._store(key, payload, command.ttl, token, b""))
            tokens.append(b"O%d" % token)
            results.append(None)
        return self._batch(blocks, Many(results, tokens, STORED))

    def _batch(self, blocks: list[bytes], expectation: Many) -> Encoded:
        """Close a batch by `mn`, whose answer ends it, even one of which nothing is sent."""
        blocks.append(b"mn\r\n")
        return joined(blocks), expectation

    def _store(
        self, key: bytes, payload: Payload, ttl: float | None, token: int, mode: bytes
    ) -> bytes:
        name, binary = spelled(key)
        flags, data = payload
        expiry = memcached_exptime(ttl, self._clock)
        return b"ms %s %d F%d T%d%s O%d%s\r\n%s\r\n" % (
            name,
            len(data),
            int(flags),
            expiry,
            mode,
            token,
            binary,
            data,
        )

    def _cas(self, command: Cas) -> Encoded:
        token = self._next_token()
        payload = self._checked(command.payload)
        mode = b" C%d" % self._number(command.token)
        block = self._store(command.key, payload, command.ttl, token, mode)
        return (block,), One(b"O%d" % token, CAS)

    def _get_or_stub(self, command: GetOrStub) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        life = memcached_exptime(command.ttl, self._clock)
        line = b"mg %s v f c N%d O%d%s\r\n" % (name, life, token, binary)
        return (line,), OneBegin(b"O%d" % token, self._runs.number, self._node)

    def _renew(self, command: Renew) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        life = memcached_exptime(command.ttl, self._clock)
        version = self._number(command.token)
        # Its number is another one now, so that whoever met the stub needs the mark to know it again.
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
        return (block,), OneRenew(b"O%d" % token, self._runs.number)

    def _acquire(self, command: Acquire) -> Encoded:
        token = self._next_token()
        payload = self._checked(command.payload)
        block = self._store(command.key, payload, command.ttl, token, b" ME c")
        return (block,), OneTake(b"O%d" % token, self._runs.number)

    def _number(self, token: Hashable) -> int:
        """Give the CAS number of a token, or 0, which no item has.

        That is for a token of another backend, or of another run of the server.
        """
        if isinstance(token, RunToken) and token.run == self._runs.number:
            return token.number
        return 0

    def _delete_cas(self, command: DeleteCas) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        line = b"md %s C%d O%d%s\r\n" % (name, self._number(command.token), token, binary)
        return (line,), One(b"O%d" % token, REMOVED)

    def _delete(self, command: Delete) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        return (b"md %s O%d%s\r\n" % (name, token, binary),), One(b"O%d" % token, THERE)

    def _delete_many(self, command: DeleteMany) -> Encoded:
        lines, tokens = [], []
        for key in command.keys:
            token = self._next_token()
            name, binary = spelled(key)
            lines.append(b"md %s O%d%s\r\n" % (name, token, binary))
            tokens.append(b"O%d" % token)
        return self._batch(lines, Many([None] * len(lines), tokens, THERE))

    def _touch(self, command: Touch) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        expiry = memcached_exptime(command.ttl, self._clock)
        return (b"mg %s T%d O%d%s\r\n" % (name, expiry, token, binary),), One(b"O%d" % token, THERE)

    def _incr(self, command: Incr) -> Encoded:
        token = self._next_token()
        name, binary = spelled(command.key)
        mode = b" MD" if command.delta < 0 else b""
        line = b"ma %s v D%d O%d%s%s\r\n" % (name, abs(int(command.delta)), token, mode, binary)
        return (line,), Counter(b"O%d" % token, self._node, command.delta)

    def _ping(self, _: Ping) -> Encoded:
        return (b"mn\r\n",), Word(b"MN")

    def _flush(self, _: FlushAll) -> Encoded:
        return (b"flush_all\r\n",), Word(b"OK")

    def _stats(self, _: ServerStats) -> Encoded:
        return (b"stats\r\n",), Stats()

    _encoders: ClassVar[dict[type, Callable[[MemcachedWire, Any], Encoded]]] = {  # each its own
        Get: _get,
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
        Ping: _ping,
        ServerStats: _stats,
        FlushAll: _flush,
    }


def _nonsense(kind: bytes, text: str) -> str:
    """Return what an answer that begins so says of the server."""
    if kind == b"ERROR":
        return (
            "does not know the meta protocol of memcached 1.6: older servers and proxies are"
            " pymemcache:// nodes"
        )
    if kind == b"CLIENT_ERROR" and "unauthenticated" in text:
        return "wants a login (memcached -Y), and shardcache makes none"
    if kind.startswith(b"-"):
        return "answers as Redis does: a Redis node is redis://"
    return "gave an answer that makes no sense here"


def spelled(key: bytes) -> tuple[bytes, bytes]:
    """Give a key as memcached takes it, and the flag that says how: as is, base64, or hashed."""
    if is_plain(key):
        return key, b""
    encoded = b64encode(key)
    return (encoded, b" b") if len(encoded) <= MAX_PLAIN else (hash_name(key), b"")
