"""What servers themselves say of the commands they were sent."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from shardcache.core.reserved_keys import LOCKS, VALUE_LOCKS
from shardcache.testing.servers import Server

SECONDS = 5.0  # for an answer about a server
REPORTED = 0.2  # seconds within which a server has reported what it has just run

# What memcached counts, by what we call it. A command of the meta protocol counts as its kind.
MEMCACHED = {
    "get": ("cmd_get", "cmd_touch"),  # a get that touches counts as either
    "set": ("cmd_set",),
    "delete": ("delete_hits", "delete_misses"),
    "incr": ("incr_hits", "incr_misses", "decr_hits", "decr_misses"),
}

# What a connection says for itself, and our own questions.
ABOUT = {"auth", "client", "command", "config", "hello", "info", "keys", "monitor", "ping"}
ABOUT |= {"quit", "role", "script", "select"}


class LogIncompleteError(RuntimeError):
    """A server was too busy to report every command."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One command of a server's own log."""

    verb: str
    key: bytes

    @property
    def locks(self) -> bool:
        """Say whether it was about a lock."""
        return is_lock(self.key)


def is_lock(key: bytes) -> bool:
    """Say whether a key is a lock's."""
    return key.startswith((LOCKS, VALUE_LOCKS))


def counted(server: Server) -> Counter[str]:
    """Give how often each command was run since the server started."""
    if server.url.startswith("redis"):
        found = re.findall(
            rb"cmdstat_([^:|]+)\S*:calls=(\d+)", _asked(server, b"INFO commandstats")
        )
        commands = Counter({name.decode(): int(calls) for name, calls in found})
        return Counter({name: calls for name, calls in commands.items() if name not in ABOUT})
    figures = _figures(server)
    return Counter(
        {verb: sum(figures[name] for name in names) for verb, names in MEMCACHED.items()}
    )


def keys(server: Server) -> list[bytes]:
    """Give the keys on a server."""
    if server.url.startswith("redis"):
        return re.findall(rb"\r\n\$\d+\r\n(.*?)(?=\r\n)", b"\r\n" + _asked(server, b"KEYS *"))
    # It answers this from another thread, and reads nothing that was sent with it.
    dump = _asked(server, b"lru_crawler metadump all", until=b"END\r\n")
    return [unquote_to_bytes(key) for key in re.findall(rb"^key=(\S+)", dump, re.MULTILINE)]


@contextmanager
def watched(servers: Iterable[Server]) -> Iterator[list[Seen]]:
    """Give a list that holds, once the block has ended, all commands run meanwhile.

    From `watch` of memcached and `MONITOR` of Redis, so of each server's own knowledge.
    """
    seen: list[Seen] = []
    watches = [_Watch(server) for server in servers]
    try:
        yield seen
    finally:
        time.sleep(REPORTED)
        for watch in watches:
            seen.extend(watch.ended())


class _Watch:
    """A connection on which a server reports; read as it comes, understood at the end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._redis = server.url.startswith("redis")
        self._connection = _connected(server)
        request = b"MONITOR\r\n" if self._redis else b"watch fetchers mutations\r\n"
        self._connection.sendall(request)
        self._data = bytearray()
        self._first = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._first.wait(SECONDS)

    def ended(self) -> list[Seen]:
        """Give what was reported, and hang up."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()
        lines = bytes(self._data).splitlines()
        if self._redis:
            return list(_of_redis(lines))
        figures = _figures(self._server)
        if left_out := figures["log_worker_dropped"] + figures["log_watcher_skipped"]:
            raise LogIncompleteError(f"{self._server!r} left {left_out} lines out of its log")
        return list(_of_memcached(lines))

    def _read(self) -> None:
        self._connection.settimeout(None)
        with suppress(OSError):
            while data := self._connection.recv(1 << 16):
                self._data += data
                self._first.set()


def _figures(server: Server) -> dict[str, int]:
    """Give the whole numbers among memcached's statistics."""
    found = re.findall(rb"STAT (\w+) (\d+)\r", _asked(server, b"stats"))
    return {name.decode(): int(value) for name, value in found}


def _of_redis(lines: Iterable[bytes]) -> Iterator[Seen]:
    for line in lines:
        words = re.findall(rb'"((?:[^"\\]|\\.)*)"', line)
        if not words or b" lua] " in line:
            continue
        verb = words[0].decode().lower()
        if verb in ABOUT:
            continue
        place = 3 if verb.startswith("eval") else 1
        yield Seen(verb, _unescaped(words[place]) if len(words) > place else b"")


def _of_memcached(lines: Iterable[bytes]) -> Iterator[Seen]:
    """Give a command for each look at an item, which comes first in every one; stores follow it."""
    looked: dict[bytes, Seen] = {}
    for line in lines:
        fields = dict(word.split(b"=", 1) for word in line.split() if b"=" in word)
        if b"key" not in fields:
            continue
        connection, key = fields.get(b"cfd", b""), unquote_to_bytes(fields[b"key"])
        if fields[b"type"] == b"item_store":
            looked.pop(connection, None)
            yield Seen(fields[b"cmd"].decode(), key)
            continue
        if connection in looked:
            yield looked.pop(connection)
        looked[connection] = Seen("get", key)
    yield from looked.values()


def _unescaped(word: bytes) -> bytes:
    return word.decode("unicode_escape").encode("latin-1")


def _asked(server: Server, question: bytes, until: bytes | None = None) -> bytes:
    """Ask on a fresh connection; the answer is all `until` its end, or until the server hangs up."""
    with _connected(server) as connection:
        connection.sendall(question + (b"\r\nquit\r\n" if until is None else b"\r\n"))
        answer = bytearray()
        while data := connection.recv(1 << 16):
            answer += data
            if until is not None and answer.endswith(until):
                break
    return bytes(answer)


def _connected(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=SECONDS)
