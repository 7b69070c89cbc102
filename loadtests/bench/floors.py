"""The floor: sockets that send and receive the same bytes, and do nothing else."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from bench.peers import Client
from bench.workload import TTL, VALUE, keys_of
from shardcache.testing.servers import Server

RECEIVE: Final = 65_536

Encode = Callable[[bytes, bytes], bytes]


def _redis(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


# The requests by kind of server and operation. `many` ends each node's share, where a reply ends it.
REQUESTS: Final[dict[str, dict[str, Encode]]] = {
    "memcached": {
        "get": lambda key, _: b"mg %s v f\r\n" % key,
        "set": lambda key, value: b"ms %s %d T%d\r\n%s\r\n" % (key, len(value), TTL, value),
        "incr": lambda key, _: b"ma %s v\r\n" % key,
        "delete": lambda key, _: b"md %s\r\n" % key,
    },
    "redis": {
        "get": lambda key, _: _redis(b"GET", key),
        "set": lambda key, value: _redis(b"SET", key, value, b"EX", b"%d" % TTL),
        "incr": lambda key, _: _redis(b"INCR", key),
        "delete": lambda key, _: _redis(b"DEL", key),
    },
}
BULK_READ: Final[dict[str, Callable[[Sequence[bytes]], bytes]]] = {
    "memcached": lambda keys: b"".join(b"mg %s k v q\r\n" % key for key in keys) + b"mn\r\n",
    "redis": lambda keys: _redis(b"MGET", *keys),
}


class RawSockets:
    """Blocking sockets, one for each server; requests are made before anything is measured."""

    def __init__(self, kind: str, servers: Sequence[Server], keys: int) -> None:
        self._kind = kind
        self._sockets = [socket.create_connection((s.host, s.port)) for s in servers]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._keys = keys_of("raw", keys)
        for number, key in enumerate(self._keys):
            self._exchange(key, self.request("set", key))
            self._exchange(f"n:{number}", self.request("set", f"n:{number}", b"1"))

    def client(self) -> Client:
        """Return its calls; each takes a request and its socket."""
        return Client("raw", {"call": _call, "read_many": _read_many}, self.close)

    def requests(self, operation: str) -> tuple[list[socket.socket], list[bytes]]:
        """Return a socket and a request for each of its keys."""
        keys = {
            "incr": [f"n:{number}" for number in range(len(self._keys))],
            "delete": keys_of("none", len(self._keys)),
        }.get(operation, self._keys)
        return [self._of(key) for key in keys], [self.request(operation, key) for key in keys]

    def shares(self, size: int) -> list[list[tuple[socket.socket, bytes, int]]]:
        """Return for each batch of keys the sockets to ask, each with its request and its reply's length."""
        return [
            self._shares(self._keys[start : start + size])
            for start in range(0, len(self._keys), size)
        ]

    def request(self, operation: str, key: str, value: bytes = VALUE) -> bytes:
        """Return the bytes of one request."""
        return REQUESTS[self._kind][operation](key.encode(), value)

    def _shares(self, keys: Sequence[str]) -> list[tuple[socket.socket, bytes, int]]:
        by_socket: dict[socket.socket, list[bytes]] = {}
        for key in keys:
            by_socket.setdefault(self._of(key), []).append(key.encode())
        shares = []
        for connection, encoded in by_socket.items():
            request = BULK_READ[self._kind](encoded)
            shares.append((connection, request, _length_of_reply(connection, request)))
        return shares

    def _of(self, key: str) -> socket.socket:
        return self._sockets[zlib.crc32(key.encode()) % len(self._sockets)]

    def _exchange(self, key: str, request: bytes) -> None:
        _call(self._of(key), request)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._sockets:
            connection.close()


def _length_of_reply(connection: socket.socket, request: bytes) -> int:
    """Ask once, and return how long the reply is: until nothing more comes."""
    connection.sendall(request)
    length = len(connection.recv(RECEIVE))
    connection.settimeout(0.02)
    try:
        while part := connection.recv(RECEIVE):
            length += len(part)
    except TimeoutError:
        connection.settimeout(None)
    return length


def _call(connection: socket.socket, request: bytes) -> None:
    connection.send(request)
    connection.recv(RECEIVE)


def _read_many(shares: Sequence[tuple[socket.socket, bytes, int]]) -> None:
    for connection, request, _ in shares:
        connection.send(request)
    for connection, _, length in shares:
        rest = length
        while rest > 0:
            rest -= len(connection.recv(RECEIVE))


class Multiplexer:
    """Many tasks on one connection a server: requests are joined, replies counted by their length."""

    def __init__(
        self, kind: str, servers: Sequence[Server], keys: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        with_blocking = RawSockets(kind, servers, keys)
        texts = keys_of("raw", keys)
        self._requests = {key: with_blocking.request("get", key) for key in texts}
        sockets, requests = with_blocking.requests("get")
        sockets[0].sendall(requests[0])
        reply = len(sockets[0].recv(RECEIVE))
        with_blocking.close()
        self._lines = [_Line(loop, server, reply) for server in servers]
        self._line_of = {key: self._lines[zlib.crc32(key.encode()) % len(servers)] for key in texts}

    async def get(self, key: str) -> None:
        """Wait for a reply; every value is as long as the others."""
        await self._line_of[key].ask(self._requests[key])

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()


class _Line:
    """One connection of a multiplexer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, reply: int) -> None:
        self._loop = loop
        self._reply = reply
        self._socket = socket.create_connection((server.host, server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)  # noqa: FBT003 - its only parameter
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._unsent: list[bytes] = []
        self._received = 0
        loop.add_reader(self._socket, self._receive)

    def ask(self, request: bytes) -> asyncio.Future[None]:
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(request)
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _send(self) -> None:
        joined = b"".join(self._unsent)
        sent = self._socket.send(joined)
        self._unsent.clear()
        if sent < len(joined):
            self._unsent.append(joined[sent:])
            self._loop.call_soon(self._send)

    def _receive(self) -> None:
        whole, self._received = divmod(
            self._received + len(self._socket.recv(RECEIVE)), self._reply
        )
        for _ in range(whole):
            self._waiting.popleft().set_result(None)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
