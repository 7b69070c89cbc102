"""The floor of a measurement: plain sockets that send and receive the bytes of a call, and no more."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from shardcache.core.placement.nodes import Address, Node

PATIENCE: Final = 5  # seconds
RECEIVE: Final = 65_536
KINDS: Final[Mapping[str, str]] = {
    "memcached": "memcached",
    "memcached+unix": "memcached",
    "redis": "redis",
    "redis+unix": "redis",
}


class FloorError(Exception):
    """The server did not answer as it does without a client between."""


class Part(NamedTuple):
    """What a call sends to one node, and the length of the reply."""

    connection: socket.socket
    request: bytes
    reply: int


Parts = Sequence[Part]


class Floor:
    """A connection to each node of a kind; no TLS, and no other protocol than the client's own."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """Connect and log in; raise `FloorError` or `OSError` where that cannot be done."""
        self._connections: dict[str, socket.socket] = {}
        self._kind = "redis"
        try:
            for node in nodes:
                self._kind = KINDS[node.address.scheme]
                self._connections[node.name] = _connect(node.address)
                if self._kind == "redis":
                    self._greet(node)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def knows(scheme: str) -> bool:
        """Return whether nodes of a scheme can be asked so."""
        return scheme in KINDS

    def get(self, names: Mapping[bytes, str]) -> Parts:
        """Return the call that reads values by their names, each on the node it is given with."""
        requests = _READS[self._kind]
        lengths = {name: self._length_of(name, node) for name, node in names.items()}
        parts = []
        for node, theirs in _by_node(names).items():
            head = len(b"*%d\r\n" % len(theirs)) if self._kind == "redis" and len(names) > 1 else 0
            reply = head + sum(lengths[name] for name in theirs)
            single = len(names) == 1
            request = requests(theirs, single=single)
            parts.append(Part(self._connections[node], request, reply))
        return parts

    def set(self, names: Mapping[bytes, str], value: bytes, ttl: int) -> Parts:
        """Return the call that writes a value under names, each on the node it is given with."""
        write = _WRITES[self._kind]
        stored = len(b"HD\r\n" if self._kind == "memcached" else b"+OK\r\n")
        return [
            Part(
                self._connections[node],
                b"".join(write(name, value, ttl) for name in theirs),
                stored * len(theirs),
            )
            for node, theirs in _by_node(names).items()
        ]

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()

    def _greet(self, node: Node) -> None:
        address, connection = node.address, self._connections[node.name]
        if address.password:
            words = [each.encode() for each in (address.username, address.password) if each]
            _demand(connection, _words(b"AUTH", *words))
        if database := _database(address):
            _demand(connection, _words(b"SELECT", database.encode()))

    def _length_of(self, name: bytes, node: str) -> int:
        """Read a value once; return the length of the reply."""
        connection = self._connections[node]
        connection.sendall(_READS[self._kind]([name], single=True))
        reply = _receive(connection)
        while b"\r\n" not in reply:
            reply += _receive(connection)
        head, _, _ = reply.partition(b"\r\n")
        size = _size_of(head)
        length = len(head) + size + 4
        while len(reply) < length:
            reply += _receive(connection)
        return length


def exchange(parts: Parts) -> None:
    """Send the requests of a call, then read all replies."""
    for connection, request, _ in parts:
        connection.sendall(request)
    for connection, _, reply in parts:
        rest = reply
        while rest > 0:
            rest -= len(_receive(connection))


def _connect(address: Address) -> socket.socket:
    if address.scheme.endswith("+unix"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.path)
    else:
        connection = socket.create_connection((address.host, address.port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
    # A timeout of Python's would make every read two calls of the system.
    with contextlib.suppress(OSError):
        limit = struct.pack("ll", PATIENCE, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    return connection


def _database(address: Address) -> str:
    if address.scheme == "redis":
        return address.path
    return dict(address.options).get("db", "")


def _demand(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    if not connection.recv(RECEIVE).startswith(b"+"):
        raise FloorError("the server refused a login or a database")


def _size_of(head: bytes) -> int:
    """Return the size of the value that follows the first line of a reply."""
    try:
        word = head.split()[1] if head.startswith(b"VA ") else head.removeprefix(b"$")
        size = int(word)
    except (IndexError, ValueError):
        size = -1
    if size < 0:
        raise FloorError("the server did not return the value")
    return size


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(RECEIVE)
    if not received:
        raise FloorError("the server closed the connection")
    return received


def _by_node(names: Mapping[bytes, str]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for name, node in names.items():
        found.setdefault(node, []).append(name)
    return found


def _read_memcached(names: Sequence[bytes], *, single: bool) -> bytes:  # noqa: ARG001 - as Redis'
    return b"".join(b"mg %s v f\r\n" % name for name in names)


def _read_redis(names: Sequence[bytes], *, single: bool) -> bytes:
    return _words(b"GET", *names) if single else _words(b"MGET", *names)


def _write_memcached(name: bytes, value: bytes, ttl: int) -> bytes:
    return b"ms %s %d T%d\r\n%s\r\n" % (name, len(value), ttl, value)


def _write_redis(name: bytes, value: bytes, ttl: int) -> bytes:
    return _words(b"SET", name, value, b"EX", b"%d" % ttl)


def _words(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


_READS: Final = {"memcached": _read_memcached, "redis": _read_redis}
_WRITES: Final = {"memcached": _write_memcached, "redis": _write_redis}
