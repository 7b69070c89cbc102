"""One connection driven by pymemcache, and how each command is sent over it."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from pymemcache.client.base import Client  # type: ignore[import-untyped]  # it has no types
from pymemcache.exceptions import MemcacheServerError, MemcacheUnknownError  # type: ignore[import-untyped]  # as above

from shardcache.backends.expiry import RELATIVE_LIMIT, memcached_exptime
from shardcache.backends.handlers import Handlers
from shardcache.backends.pymemcache.refusals import HungUpError
from shardcache.backends.transport.pool import Connection
from shardcache.core.commands import (
    COUNTER_MAX,
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
    StubReply,
    Touch,
)
from shardcache.core.keys import hash_name, is_plain
from shardcache.core.reserved_keys import PROBES, own_key
from shardcache.core.values.flags import abandoned, is_stub, stub
from shardcache.errors import NodeError, NodeRefusedError, NotACounterError, ValueTooLargeError

WHOLE_CIRCLE: Final = 2**64  # where the server's counters wrap
LINES: Final = 64 * 1024  # bytes that a reply may have in addition to its values, and for each key:
LINE: Final = 320
LARGEST: Final = 1024**3  # bytes of a value; the largest -I that memcached accepts

BEGIN_TRIES: Final = 3  # enough, because a stub rarely vanishes between two steps

# The earliest expiry that memcached reads as a date. A negative number also means the past, but
# twemproxy hangs up on it.
LONG_AGO: Final = RELATIVE_LIMIT + 1

_FOREIGN: Final = b"18446744073709551615"  # for a token of another backend: no item has this number

_is_cas = re.compile(rb"[1-9][0-9]{0,19}").fullmatch
_is_number = re.compile(rb"[0-9]{1,20} *").fullmatch
_is_value = re.compile(rb"VALUE [!-~]{1,250} [0-9]{1,10} ([0-9]{1,10})( [0-9]{1,20})?").fullmatch


def _is_count(line: bytes) -> bool:
    return line == b"NOT_FOUND" or _is_number(line) is not None


# The legal answers of one line. pymemcache would read any other line as a "no".
_ANSWERS: Final[Mapping[bytes, Callable[[bytes], bool]]] = {
    b"delete": (b"DELETED", b"NOT_FOUND").__contains__,
    b"touch": (b"TOUCHED", b"NOT_FOUND").__contains__,
    b"flush_all": (b"OK",).__contains__,
    b"incr": _is_count,
    b"decr": _is_count,
}


class DeadlineSocket:
    """The socket that pymemcache uses, with one deadline for a whole command.

    pymemcache's own timeout restarts with every `recv`, so a node that sends a byte now and then
    could delay a call for ever. It also accepts lines of any length, hence `allowed`: the number of
    bytes that may still arrive.
    """

    def __init__(self) -> None:
        # Set only during a command: a connection that an interrupt drops must not be part of a
        # reference cycle, or the pool would go on counting it.
        self.connection: Connection | None = None
        self.deadline = 0.0
        self.allowed = 0

    def sendall(self, data: bytes) -> None:
        """Send all of `data` by the deadline."""
        connection = self._current()
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[connection.try_send(unsent) :]
            except BlockingIOError:
                self._await(partial(_wait_writable, connection))

    def recv(self, size: int) -> bytes:
        """Receive the next bytes by the deadline."""
        connection = self._current()
        self._await(connection.poll)
        data = connection.recv(size)
        if not data:
            raise HungUpError("closed by the node")
        self.allowed -= len(data)
        if self.allowed < 0:
            raise MemcacheUnknownError("more bytes than announced")
        return data

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()

    def _current(self) -> Connection:
        if self.connection is None:
            raise MemcacheUnknownError("no command is in progress")
        return self.connection

    def _await(self, poll: Callable[[float], object]) -> None:
        wait = self.deadline - time.monotonic()
        if wait <= 0 or not poll(wait * 1000):
            raise TimeoutError


def _wait_writable(connection: Connection, timeout: float) -> object:
    poll = select.poll()
    poll.register(connection.sock, select.POLLOUT)
    return poll.poll(timeout)


class StrictClient(Client):  # type: ignore[misc]  # pymemcache has no types
    """pymemcache's client for one connection, which refuses malformed answers."""

    def __init__(self, node: str, sock: DeadlineSocket, max_value_bytes: int) -> None:
        super().__init__(("", 0), serde=PlainPayloads(), default_noreply=False)
        self.node = node
        self.sock = sock
        self.max_value_bytes = max_value_bytes

    def _connect(self) -> None:
        raise MemcacheUnknownError("the connection is closed")  # only the pool dials a new one

    def _raise_errors(self, line: bytes, name: bytes) -> None:
        if line.startswith(b"ERROR Too many open connections"):
            # pymemcache would raise "unknown command" and drop the text.
            raise MemcacheServerError(line[6:])
        super()._raise_errors(line, name)

    def _misc_cmd(
        self, cmds: Iterable[bytes], cmd_name: bytes, *args: Any, **kwargs: Any
    ) -> list[bytes]:
        lines: list[bytes] = super()._misc_cmd(cmds, cmd_name, *args, **kwargs)
        if not all(map(_ANSWERS[cmd_name], lines)):
            raise MemcacheUnknownError("sent a reply that does not fit the command")
        return lines

    def _extract_value(self, expect_cas: bool, line: bytes, *args: Any) -> Any:  # noqa: FBT001 - pymemcache's signature
        announced = _is_value(line)
        if announced is None or expect_cas != bool(announced[2]) or int(announced[1]) > LARGEST:
            raise MemcacheUnknownError("a value of invalid size")
        size = int(announced[1])
        if size > self.max_value_bytes:  # it is not read, so the connection gets closed
            raise ValueTooLargeError(
                f"a value of {size} bytes is stored, more than max_value_bytes="
                f"{self.max_value_bytes}",
                self.node,
            )
        self.sock.allowed += size
        return super()._extract_value(expect_cas, line, *args)

    def delete_each(self, names: Sequence[bytes]) -> list[bool]:
        """Delete many keys at once; unlike `delete_many`, return for each whether it was there."""
        lines = self._misc_cmd(
            [b"delete %b\r\n" % name for name in names], b"delete", noreply=False
        )
        return [line == b"DELETED" for line in lines]


class PlainPayloads:
    """pymemcache's serializer for payloads, which are stored with their own flags."""

    def serialize(self, key: bytes, value: Payload) -> tuple[bytes, int]:  # noqa: ARG002 - pymemcache's signature
        """Return the bytes and flags to store."""
        return value[1], value[0]

    def deserialize(self, key: bytes, value: bytes, flags: int) -> Payload:  # noqa: ARG002 - as above
        """Return the stored payload."""
        return flags, value


class Session:
    """The conversation of one connection; the pool uses it as the wire.

    After any error it is in the middle of a command, so the pool closes it.
    """

    def __init__(self, node: str, max_value_bytes: int) -> None:
        self._node = node
        self._max_value_bytes = max_value_bytes
        self.idle = True
        self.greeted = True
        self._sock: DeadlineSocket | None = None
        self._client: Any = None  # pymemcache has no types

    def hello(self) -> bytes:
        """Return nothing: the classic protocol needs no greeting."""
        return b""

    def ask(self, connection: Connection, command: Command, deadline: float) -> Reply:
        """Send `command` and return its reply; raise pymemcache's errors or the system's."""
        sock = self._sock
        if sock is None:
            self._sock = sock = DeadlineSocket()
            self._client = StrictClient(self._node, sock, self._max_value_bytes)
        handler = _HANDLERS[type(command)]
        sock.deadline = deadline
        sock.allowed = LINES + LINE * _size(command)
        self.idle = False
        sock.connection = connection
        try:
            reply = handler(self._client, command)
        finally:
            sock.connection = None
        self.idle = True
        return reply


def _size(command: Command) -> int:
    if isinstance(command, SetMany):
        return len(command.items)
    return len(command.keys) if isinstance(command, (GetMany, DeleteMany)) else 1


def encode_key(key: bytes) -> bytes:
    """Return a key in a form that the classic protocol accepts."""
    return key if is_plain(key) else hash_name(key)


def _exptime(ttl: float | None) -> int:
    return memcached_exptime(ttl, time.time)


_TELLS_NO_EXPIRY: Final = (
    "the classic protocol of memcached does not tell when a value expires; for a server from 1.6 on use"
    " memcached://"
)

# Each takes pymemcache's client, which has no types, and its own command type.
_HANDLERS: Final[Handlers[Callable[[Any, Any], Reply]]] = Handlers(
    "pymemcache", dict.fromkeys((GetAged, Peek, GetExpiry), _TELLS_NO_EXPIRY)
)


@_HANDLERS.handles(Get)
def _get(client: Any, command: Get) -> Reply:
    reply: Payload | None = client.get(encode_key(command.key))
    return reply


@_HANDLERS.handles(GetMany)
def _get_many(client: Any, command: GetMany) -> Reply:
    names = list(map(encode_key, command.keys))
    return list(map(client.get_many(names).get, names))


@_HANDLERS.handles(Gets)
def _gets(client: Any, command: Gets) -> Reply:
    payload, token = client.gets(encode_key(command.key))
    return None if payload is None else (payload, token)


@_HANDLERS.handles(Set)
def _set(client: Any, command: Set) -> Reply:
    store = getattr(client, command.when.value)
    stored: bool = store(encode_key(command.key), command.payload, expire=_exptime(command.ttl))
    return stored


@_HANDLERS.handles(SetMany)
def _set_many(client: Any, command: SetMany) -> Reply:
    items = {encode_key(key): payload for key, payload in command.items}
    unstored = client.set_many(items, expire=_exptime(command.ttl))
    stored: list[bool | NodeError] = [encode_key(key) not in unstored for key, _ in command.items]
    return stored


@_HANDLERS.handles(Cas)
def _cas(client: Any, command: Cas) -> Reply:
    token = _cas_number(command.token)
    expire = _exptime(command.ttl)
    stored: bool | None = client.cas(encode_key(command.key), command.payload, token, expire=expire)
    return stored


def _cas_number(token: Hashable) -> bytes:
    """Return the CAS number of a token; for a token of another backend, one that no item has."""
    return token if isinstance(token, bytes) and _is_cas(token) and int(token) < 2**64 else _FOREIGN


@_HANDLERS.handles(Delete)
def _delete(client: Any, command: Delete) -> Reply:
    removed: bool = client.delete(encode_key(command.key))
    return removed


@_HANDLERS.handles(DeleteMany)
def _delete_many(client: Any, command: DeleteMany) -> Reply:
    removed: list[Any] = client.delete_each(list(map(encode_key, command.keys)))
    return removed


@_HANDLERS.handles(Touch)
def _touch(client: Any, command: Touch) -> Reply:
    there: bool = client.touch(encode_key(command.key), expire=_exptime(command.ttl))
    return there


@_HANDLERS.handles(Incr)
def _incr(client: Any, command: Incr) -> Reply:
    name, delta = encode_key(command.key), command.delta
    reached: int | None = client.incr(name, delta) if delta >= 0 else client.decr(name, -delta)
    # memcached wraps at 2**64: a sum below the addend has wrapped.
    if reached is None or delta <= reached <= COUNTER_MAX:
        return reached
    if delta > 0:
        client.incr(name, WHOLE_CIRCLE - delta)  # back to the old value
    return NotACounterError("the counter passed 2**63 - 1", client.node)


@_HANDLERS.handles(GetOrStub)
def _get_or_stub(client: Any, command: GetOrStub) -> Reply:
    name, own_stub = encode_key(command.key), stub(command.mark)
    expire = _exptime(command.ttl)
    for _ in range(BEGIN_TRIES):
        payload, token = client.gets(name)
        if payload is not None:
            if is_stub(payload):
                return StubReply(None, token, leads=payload == own_stub, stub=payload)
            return StubReply(payload, token, leads=False)
        client.add(name, own_stub, expire=expire)
    return NodeRefusedError("the key vanished repeatedly", client.node)


@_HANDLERS.handles(Renew)
def _renew(client: Any, command: Renew) -> Reply:
    name, own_stub = encode_key(command.key), stub(command.mark)
    if (
        client.cas(name, own_stub, _cas_number(command.token), expire=_exptime(command.ttl))
        is not True
    ):
        return None
    payload, token = client.gets(name)
    return token if payload == own_stub else None


@_HANDLERS.handles(Acquire)
def _acquire(client: Any, command: Acquire) -> Reply:
    key, payload, ttl = command
    # The classic protocol returns no CAS number for a store; `CompareAndDelete` looks it up.
    return Acquired(None) if client.add(encode_key(key), payload, expire=_exptime(ttl)) else False


@_HANDLERS.handles(DeleteCas)
def _delete_cas(client: Any, command: DeleteCas) -> Reply:
    # The protocol has no delete by CAS number, but an item with an expiry in the past is gone.
    deleted: bool | None = client.cas(
        encode_key(command.key), abandoned(b""), _cas_number(command.token), expire=LONG_AGO
    )
    return deleted is True


@_HANDLERS.handles(CompareAndDelete)
def _compare_and_delete(client: Any, command: CompareAndDelete) -> Reply:
    payload, token = client.gets(encode_key(command.key))
    return payload == command.payload and _delete_cas(client, DeleteCas(command.key, token))


@_HANDLERS.handles(CompareAndExpire)
def _compare_and_expire(client: Any, command: CompareAndExpire) -> Reply:
    payload, token = client.gets(encode_key(command.key))
    if payload != command.payload:
        return False
    expire = _exptime(command.ttl)
    stored: bool | None = client.cas(encode_key(command.key), payload, token, expire=expire)
    return stored is True


@_HANDLERS.handles(Ping)
def _ping(client: Any, command: Ping) -> Reply:  # noqa: ARG001 - it has no fields
    # Proxies do not forward `version`, but every server answers whether it has a key.
    client.get(own_key(PROBES))
    return True


@_HANDLERS.handles(ServerStats)
def _stats(client: Any, command: ServerStats) -> Reply:  # noqa: ARG001 - it has no fields
    return {_text(name): _text(figure) for name, figure in client.stats().items()}


def _text(figure: object) -> str:
    return figure.decode(errors="replace") if isinstance(figure, bytes) else str(figure)


@_HANDLERS.handles(FlushAll)
def _flush(client: Any, command: FlushAll) -> Reply:  # noqa: ARG001 - it has no fields
    flushed: bool = client.flush_all()
    return flushed


SUPPORTS: Final = _HANDLERS.supports
