"""A backend: each node is an SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

from shardcache import ConfigurationError, Node, NodeTimeoutError, NodeUnavailableError
from shardcache.backends.base import BackendOptions, FinishedExchange
from shardcache.backends.handlers import Handlers
from shardcache.backends.locking import ProcessLock
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
)
from shardcache.core.values.flags import INTEGER_FLAGS, is_stub, stub
from shardcache.errors import NodeError, NotACounterError

COUNTER_MIN, COUNTER_MAX = -(2**63), 2**63 - 1
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# A token is new with each write, so that `cas` sees a value that was changed and changed back.
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries
  (key BLOB PRIMARY KEY, flags INTEGER, data BLOB, expires REAL, token INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS expiries ON entries (expires);
"""
FIND = "SELECT flags, data, token FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)"
WRITE = "REPLACE INTO entries VALUES (?, ?, ?, ?, random()) RETURNING token"


class Database:
    """One file, and a connection to it for each process. Threads take turns."""

    handlers: ClassVar[Handlers[Callable[[Database, Any], Reply]]] = Handlers("sqlite")

    def __init__(self, node: Node) -> None:
        options = dict(node.address.options)
        self._file = options.pop("file", "")
        if options or not self._file:
            raise ConfigurationError(f"node {node}: write sqlite://{node}?file=/path/to/a/file")
        self._node = node.name
        self._lock = ProcessLock()
        self._connections: dict[int, sqlite3.Connection] = {}
        self._closed = False

    def execute(self, command: Command, deadline: float) -> Reply:
        """Run the command as one transaction; raise a `NodeError` if the file cannot be used."""
        handler = self.handlers[type(command)]
        try:
            with self._lock.current(), self._connect(deadline) as connection:
                connection.execute("BEGIN IMMEDIATE")
                return handler(self, command)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in BUSY:
                raise NodeTimeoutError("the file stayed locked", self._node) from error
            raise NodeUnavailableError(f"cannot be used: {error}", self._node) from error
        finally:
            if self._closed:
                self.disconnect()

    def close(self) -> None:
        """Close the file; a later call opens it for itself alone."""
        self._closed = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection of this process."""
        with self._lock.current():
            connection = self._connections.pop(os.getpid(), None)
            if connection is not None:
                connection.close()

    def _connect(self, deadline: float) -> sqlite3.Connection:
        wait = max(0.0, deadline - time.monotonic())
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = sqlite3.connect(
                self._file, timeout=wait, isolation_level=None, check_same_thread=False
            )
            self._connections[os.getpid()] = connection
            connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        return connection

    def _run(self, statement: str, *parameters: object) -> Any:  # the first row, or None
        return self._connections[os.getpid()].execute(statement, parameters).fetchone()

    def _find(self, key: bytes) -> tuple[Payload, int] | None:
        row = self._run(FIND, key, time.time())
        return None if row is None else ((row[0], row[1]), row[2])

    def _payload(self, key: bytes) -> Payload | None:
        found = self._find(key)
        return None if found is None else found[0]

    def _write(self, key: bytes, payload: Payload, ttl: float | None) -> int:
        """Store an entry and return its token; drop what has expired, so that the file stays small."""
        self._run("DELETE FROM entries WHERE expires <= ?", time.time())
        token: int = self._run(WRITE, key, *payload, _expiry(ttl))[0]
        return token

    def _remove(self, key: bytes) -> bool:
        there = self._find(key) is not None
        self._run("DELETE FROM entries WHERE key = ?", key)
        return there

    def _expire(self, key: bytes, ttl: float | None) -> None:
        self._run("UPDATE entries SET expires = ? WHERE key = ?", _expiry(ttl), key)

    def _holds(self, key: bytes, payload: Payload) -> bool:
        return self._payload(key) == payload

    def _has_token(self, key: bytes, token: Hashable) -> bool:
        found = self._find(key)
        return found is not None and found[1] == token

    # PLAIN: what every backend supports.

    @handlers.handles(Get)
    def get(self, command: Get) -> Payload | None:
        """Return the key's payload."""
        return self._payload(command.key)

    @handlers.handles(GetMany)
    def get_many(self, command: GetMany) -> list[Payload | NodeError | None]:
        """Return a payload or `None` for each key."""
        return list(map(self._payload, command.keys))

    @handlers.handles(Set)
    def set(self, command: Set) -> bool:
        """Store a payload, if `when` allows it."""
        key, payload, ttl, when = command
        if when is not When.ALWAYS and (self._find(key) is not None) != (when is When.PRESENT):
            return False
        self._write(key, payload, ttl)
        return True

    @handlers.handles(SetMany)
    def set_many(self, command: SetMany) -> list[bool | NodeError]:
        """Store many payloads."""
        for key, payload in command.items:
            self._write(key, payload, command.ttl)
        return [True] * len(command.items)

    @handlers.handles(Delete)
    def delete(self, command: Delete) -> bool:
        """Remove a key."""
        return self._remove(command.key)

    @handlers.handles(DeleteMany)
    def delete_many(self, command: DeleteMany) -> list[bool | NodeError]:
        """Remove many keys."""
        return [self._remove(key) for key in command.keys]

    @handlers.handles(Touch)
    def touch(self, command: Touch) -> bool:
        """Set a new expiry on a key."""
        there = self._find(command.key) is not None  # an expired one must not come back
        if there:
            self._expire(command.key, command.ttl)
        return there

    @handlers.handles(Incr)
    def incr(self, command: Incr) -> int | NodeError | None:
        """Count down to zero."""
        return self._count(command.key, command.delta, least=0)

    @handlers.handles(Ping)
    def ping(self, _: Ping) -> bool:
        """Return `True`: a transaction has begun."""
        return True

    @handlers.handles(ServerStats)
    def stats(self, _: ServerStats) -> dict[str, str]:
        """Return the version of SQLite and the number of entries."""
        (entries,) = self._run("SELECT count(*) FROM entries")
        return {"version": sqlite3.sqlite_version, "entries": str(entries)}

    @handlers.handles(FlushAll)
    def flush_all(self, _: FlushAll) -> bool:
        """Empty the file."""
        self._run("DELETE FROM entries")
        return True

    def _count(self, key: bytes, delta: int, least: int) -> int | NodeError | None:
        """Count, and keep the expiry. A counter that may be negative does not stop at `least`."""
        payload = self._payload(key)
        if payload is None:
            return None
        flags, data = payload
        count = int(data) if flags == INTEGER_FLAGS else None
        if count is None or not least <= count <= COUNTER_MAX:
            return NotACounterError("the value is not a counter", self._node)
        counted = max(0, count + delta) if least == 0 else count + delta
        if not least <= counted <= COUNTER_MAX:
            return NotACounterError("the counter would not fit in 64 bits", self._node)
        self._replace(key, (INTEGER_FLAGS, b"%d" % counted))
        return counted

    def _replace(self, key: bytes, payload: Payload) -> None:
        """Store another payload, and keep the expiry."""
        update = "UPDATE entries SET flags = ?, data = ?, token = random() WHERE key = ?"
        self._run(update, *payload, key)

    # CAS: for `gets`, `cas` and `clear`.

    @handlers.handles(Gets)
    def gets(self, command: Gets) -> tuple[Payload, Hashable] | None:
        """Return the key's payload and its token."""
        return self._find(command.key)

    @handlers.handles(Cas)
    def cas(self, command: Cas) -> bool | None:
        """Store a payload if the token is still the same."""
        key, payload, token, ttl = command
        if self._find(key) is None:
            return None
        return self._has_token(key, token) and self._write(key, payload, ttl) is not None

    @handlers.handles(DeleteCas)
    def delete_cas(self, command: DeleteCas) -> bool:
        """Remove a key if the token is still the same."""
        return self._has_token(command.key, command.token) and self._remove(command.key)

    # AGES: for `ttl` and `exists`.

    @handlers.handles(Peek)  # it saves nothing to leave out the bytes
    @handlers.handles(GetAged)
    def get_aged(self, command: GetAged | Peek) -> tuple[Payload, float] | None:
        """Return the key's payload and the seconds that it has left."""
        payload = self._payload(command.key)
        if payload is None:
            return None
        (expires,) = self._run("SELECT expires FROM entries WHERE key = ?", command.key)
        return payload, math.inf if expires is None else expires - time.time()

    # KEEPING: for `cas` with `KEEP`, and for counters below zero.

    @handlers.handles(CasKeep)
    def cas_keep(self, command: CasKeep) -> bool | None:
        """Store a payload if the token is still the same, and keep the expiry."""
        key, payload, token = command
        if self._find(key) is None:
            return None
        same = self._has_token(key, token)
        if same:
            self._replace(key, payload)
        return same

    @handlers.handles(IncrSigned)
    def incr_signed(self, command: IncrSigned) -> int | NodeError | None:
        """Count below zero as well."""
        return self._count(command.key, command.delta, least=COUNTER_MIN)

    # STUBS: for cached functions.

    @handlers.handles(GetOrStub)
    def get_or_stub(self, command: GetOrStub) -> StubReply:
        """Return the key's payload, or leave a stub."""
        found = self._find(command.key)
        if found is None:
            own = stub(command.mark)
            token = self._write(command.key, own, command.ttl)
            return StubReply(None, token, leads=True, stub=own)
        payload, token = found
        if is_stub(payload):
            return StubReply(None, token, leads=False, stub=payload)
        return StubReply(payload, token, leads=False)

    @handlers.handles(Renew)
    def renew(self, command: Renew) -> Hashable | None:
        """Extend a stub if it is still the same."""
        if not self._has_token(command.key, command.token):
            return None
        self._expire(command.key, command.ttl)
        return command.token

    # LISTS: what travels together is one transaction.

    @handlers.handles(CommandList)
    def list(self, command: CommandList) -> list[Reply]:
        """Carry out each command."""
        return [self.handlers[type(each)](self, each) for each in command.commands]

    # LOCKS and COMPARE: for locks.

    @handlers.handles(Acquire)
    def acquire(self, command: Acquire) -> Acquired | bool:
        """Store the payload of a lock, if there is none."""
        key, payload, ttl = command
        if self._find(key) is not None:
            return False
        return Acquired(self._write(key, payload, ttl))

    @handlers.handles(CompareAndDelete)
    def compare_and_delete(self, command: CompareAndDelete) -> bool:
        """Remove a key if it holds the payload."""
        return self._holds(command.key, command.payload) and self._remove(command.key)

    @handlers.handles(CompareAndExpire)
    def compare_and_expire(self, command: CompareAndExpire) -> bool:
        """Set a new expiry on a key if it holds the payload."""
        holds = self._holds(command.key, command.payload)
        if holds:
            self._expire(command.key, command.ttl)
        return holds


def _expiry(ttl: float | None) -> float | None:
    return None if ttl is None else time.time() + ttl


class SqliteBackend:
    """A file for blocking callers. A call blocks for no longer than its deadline."""

    supports = Database.handlers.supports

    def __init__(self, database: Database) -> None:
        self._database = database

    def execute(self, command: Command, deadline: float) -> Reply:
        """Execute `command` and return its reply."""
        return self._database.execute(command, deadline)

    def begin(self, command: Command, deadline: float) -> FinishedExchange:
        """Execute `command` at once: a transaction is shorter than a switch of threads."""
        return FinishedExchange(self._database.execute(command, deadline))

    def eject(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.disconnect()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class AsyncSqliteBackend:
    """A file for asyncio: calls run in the threads of the loop's executor."""

    supports = Database.handlers.supports

    def __init__(self, database: Database) -> None:
        self._database = database

    def execute(self, command: Command, deadline: float) -> asyncio.Future[Reply]:
        """Execute `command` in a thread; return a future of its reply."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, self._database.execute, command, deadline)

    def eject(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.disconnect()

    async def aclose(self) -> None:
        """Close the file."""
        self._database.close()


class Sqlite:
    """A factory of backends for `sqlite://name?file=/path`: processes of one machine share a file.

    Nothing is evicted: the file grows unless values have a `ttl`.
    """

    def blocking(self, node: Node, options: BackendOptions) -> SqliteBackend:  # noqa: ARG002 - none apply
        """Return the blocking backend; the first call opens the file."""
        return SqliteBackend(Database(node))

    def asyncio(self, node: Node, options: BackendOptions) -> AsyncSqliteBackend:  # noqa: ARG002 - none apply
        """Return the asyncio backend; the first call opens the file."""
        return AsyncSqliteBackend(Database(node))
