"""A lock provider: the locks are rows of an SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol, TypeVar

from shardcache import ConfigurationError, LockUnavailable
from shardcache.core.leases import validity
from shardcache.core.lock_providers import (
    Holder,
    LockOptions,
    LockProvider,
    LockScope,
    NamedLock,
    Refusal,
)
from shardcache.core.urls import parse_fields, split_url

T = TypeVar("T")

# AUTOINCREMENT uses no number twice, so it is the fence.
SCHEMA = """
CREATE TABLE IF NOT EXISTS locks
  (fence INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT, name BLOB, token BLOB, owner TEXT,
   since REAL, until REAL, UNIQUE (scope, name))
"""
TAKE = """
INSERT OR IGNORE INTO locks (scope, name, token, owner, since, until) VALUES (?, ?, ?, ?, ?, ?)
RETURNING fence
"""
HOLDERS = "SELECT name, scope, owner, since, until - ?, fence FROM locks WHERE until > ?"


class Call(Protocol):
    """Call `work`, and return what it returns."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Block the thread, or suspend the task."""


async def call_here(work: Callable[[], T]) -> T:
    """Call `work` in this thread, as a blocking client does."""
    return work()


async def call_in_thread(work: Callable[[], T]) -> T:
    """Call `work` in another thread; the event loop runs on."""
    return await asyncio.to_thread(work)


class LockFile:
    """The service: a file. Each call is a transaction over a connection of its own."""

    def __init__(self, file: str) -> None:
        self._file = file

    @contextmanager
    def transaction(self, deadline: float) -> Iterator[sqlite3.Connection]:
        """Yield a connection; locks that have run out are gone. Raise `LockUnavailable` if it fails."""
        try:
            seconds = max(0.0, deadline - time.monotonic())
            connection = sqlite3.connect(self._file, timeout=seconds, isolation_level=None)
            with closing(connection):
                connection.execute(SCHEMA)
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("DELETE FROM locks WHERE until <= ?", [time.time()])
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise LockUnavailable(
                f"the file of locks {self._file} cannot be used: {error}"
            ) from error

    def run(self, deadline: float, statement: str, *parameters: object) -> list[Any]:
        """Return the rows of one statement."""
        with self.transaction(deadline) as connection:
            return connection.execute(statement, parameters).fetchall()


class SqliteGrant:
    """A row that stands for a lock: it is this holder's as long as it has its `token`."""

    def __init__(self, provider: SqliteLocks) -> None:
        self.fence: int | None = None
        self.token = secrets.token_bytes(16)
        self.pid = os.getpid()
        self._provider = provider
        self._until = 0.0  # in monotonic seconds
        self._ended = False

    def take(self, lock: NamedLock, ttl: float, deadline: float) -> bool:
        """Write the row if there is none for the lock; return whether it is ours."""
        owner, sent, now = f"process {self.pid}", time.monotonic(), time.time()
        row = (lock.scope.value, lock.name, self.token, owner, now, now + ttl)
        rows = self._provider.file.run(deadline, TAKE, *row)
        if rows:
            self.fence = rows[0][0]
            self._until = sent + validity(ttl, 0.0, whole_seconds=False)
        if self._ended:  # the caller was cancelled meanwhile
            self.free(deadline)
        return bool(rows)

    def free(self, deadline: float) -> bool:
        """Delete the row; return whether it was there."""
        statement = "DELETE FROM locks WHERE token = ? RETURNING fence"
        return bool(self._provider.file.run(deadline, statement, self.token))

    def remaining(self) -> float:
        """Return for how many more seconds it is surely held; 0 when it is not."""
        return 0.0 if self._ended else max(0.0, self._until - time.monotonic())

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Do nothing: a file tells no holder."""

    def end(self, *, lost: bool) -> None:  # noqa: ARG002 - the same in both cases
        """Count as ended."""
        self._ended = True

    async def extend(self, ttl: float, deadline: float) -> bool:
        """Move the end in the file, and ours with it; return whether the lock is still held."""

        def extend() -> bool:
            sent = time.monotonic()
            statement = "UPDATE locks SET until = ? WHERE token = ? RETURNING fence"
            with self._provider.file.transaction(deadline) as connection:
                rows = connection.execute(statement, (time.time() + ttl, self.token)).fetchall()
                if (
                    rows
                ):  # within the transaction: the last of several extensions counts in both places
                    self._until = sent + validity(ttl, 0.0, whole_seconds=False)
                return bool(rows)

        return await self._provider.call(extend)

    async def release(self) -> bool:
        """Delete the row; a file that cannot be used keeps it until its end."""
        self._ended = True
        deadline = time.monotonic() + self._provider.timeout
        try:
            return await self._provider.call(lambda: self.free(deadline))
        except LockUnavailable:
            return True


class SqliteLocks:
    """The locks of one file, for one client; `call` blocks its threads, or suspends its tasks."""

    def __init__(self, file: LockFile, timeout: float, call: Call) -> None:
        self.file = file
        self.timeout = timeout
        self.call = call
        self._grants: weakref.WeakSet[SqliteGrant] = weakref.WeakSet()
        self._closed = False

    async def attempt(self, lock: NamedLock, ttl: float, deadline: float) -> SqliteGrant | Refusal:
        """Try once to take a lock."""
        if self._closed:
            raise LockUnavailable(f"lock {lock.shown}: the client is closed")
        grant = SqliteGrant(self)
        try:
            taken = await self.call(lambda: grant.take(lock, ttl, deadline))
        except BaseException:  # also one that was cancelled while its thread goes on
            grant.end(lost=False)
            threading.Thread(target=self._free, args=[grant], daemon=True).start()
            raise
        if not taken:
            return Refusal.HELD
        self._grants.add(grant)
        return grant

    def _free(self, grant: SqliteGrant) -> None:
        with suppress(LockUnavailable):  # it runs out
            grant.free(time.monotonic() + self.timeout)

    async def is_held(self, lock: NamedLock, deadline: float) -> bool:
        """Return whether there is a row for the lock."""
        return await self.holder(lock, deadline) is not None

    async def close(self) -> None:
        """Release what this client holds in this process."""
        self._closed = True
        for grant in list(self._grants):
            if grant.pid == os.getpid() and grant.remaining():
                await grant.release()

    # An optional capability: who holds a lock.

    async def holder(self, lock: NamedLock, deadline: float) -> Holder | None:
        """Return who holds a lock, `None` if no client does."""
        is_it = f"{HOLDERS} AND scope = ? AND name = ?"
        found = await self._find(deadline, is_it, lock.scope.value, lock.name)
        return found[0] if found else None

    async def holders(self, deadline: float) -> Sequence[Holder]:
        """Return the holders of all locks."""
        return await self._find(deadline, HOLDERS)

    async def break_lock(self, lock: NamedLock, deadline: float) -> bool:
        """Delete the row of a lock; return whether there was one."""
        statement = "DELETE FROM locks WHERE scope = ? AND name = ? RETURNING fence"
        row = (lock.scope.value, lock.name)
        return bool(await self.call(lambda: self.file.run(deadline, statement, *row)))

    async def _find(self, deadline: float, statement: str, *parameters: object) -> list[Holder]:
        now = time.time()
        rows = await self.call(lambda: self.file.run(deadline, statement, now, now, *parameters))
        return [Holder(name, LockScope(scope), *others) for name, scope, *others in rows]


class SqliteLocksFactory:
    """A factory of lock providers for `sqlite://name?file=/path`.

    The file counts by the time of day, so a clock that is set back keeps a lock for longer, and one that
    is set forward gives it to the next client too early: then the fence tells.
    """

    def blocking(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of a blocking client; the first attempt opens the file."""
        return SqliteLocks(_file_of(url), options.timeout, call_here)

    def asyncio(self, url: str, options: LockOptions) -> LockProvider:
        """Return the provider of an asyncio client; the first attempt opens the file."""
        return SqliteLocks(_file_of(url), options.timeout, call_in_thread)


def _file_of(url: str) -> LockFile:
    fields = dict(parse_fields(split_url(url).fields))
    file = fields.pop("file", "")
    if fields or not file:
        raise ConfigurationError("locks: write sqlite://NAME?file=/path/to/a/file")
    return LockFile(file)
