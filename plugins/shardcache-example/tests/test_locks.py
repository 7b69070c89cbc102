"""The example lock provider keeps the contract of all lock providers, and its own promises."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shardcache_example.locks import SqliteGrant, SqliteLocks

from shardcache import AsyncClient, Client, ConfigurationError, LockUnavailable
from shardcache.testing.locks import LockProviderContract
from shardcache.testing.waiting import eventually


@pytest.fixture
def locks(tmp_path: Path) -> str:
    """Return the URL of a new file of locks."""
    return f"sqlite://shop?file={tmp_path}/locks.sqlite"


@pytest.fixture
def client(locks: str) -> Iterator[Client]:
    """Return a client whose locks are in that file."""
    with Client("memory://a", locks=locks, timeout=0.5) as client:
        yield client


class TestSqliteLocks(LockProviderContract):
    """The provider keeps the contract of all lock providers."""

    @pytest.fixture
    def settings(self, locks: str) -> dict[str, Any]:
        """Return a new file of locks."""
        return {"locks": locks}

    @pytest.fixture
    def stop(self, tmp_path: Path) -> Callable[[], object]:
        """Return what makes the file one that is no database."""
        return lambda: (tmp_path / "locks.sqlite").write_text("no database" * 1_000)

    @pytest.fixture
    def shared_nodes(self, tmp_path: Path) -> str:
        """Return a node of values that several clients share: another file."""
        return f"sqlite://node?file={tmp_path}/cache.sqlite"

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> dict[str, Any]:
        """Return a file in a directory that is not there."""
        return {"locks": f"sqlite://shop?file={tmp_path}/nowhere/locks.sqlite"}


COUNT = """
import sys
from pathlib import Path
from shardcache import Client
number = Path(sys.argv[2])
with Client("memory://a", locks=sys.argv[1], timeout=10) as client:
    for _ in range(20):
        with client.lock("count", ttl=60):
            number.write_text(str(int(number.read_text()) + 1))
"""


def test_processes_share_a_file(locks: str, tmp_path: Path):
    """They hold a lock one after another: none of their counts is lost."""
    number = tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", COUNT, locks, str(number)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert number.read_text() == "40"


def test_a_fence_is_never_used_twice(client: Client, locks: str):
    """Also when all locks have been released, and the clients are others."""
    fences = []
    for name in ("report", "other", "report"):
        with Client("memory://a", locks=locks) as one, one.lock(name) as lease:
            fences.append(lease.fence)
    with client.lock("report") as lease:
        fences.append(lease.fence)
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cancelled_attempt_frees_what_its_thread_takes(
    locks: str, client: Client, monkeypatch: pytest.MonkeyPatch, moment: str
):
    """Whether the thread writes the row before or after that; soon another client has the lock."""
    take, free = SqliteGrant.take, SqliteLocks._free
    paused, freed, go_on = threading.Event(), threading.Event(), threading.Event()

    def pause() -> None:
        paused.set()
        go_on.wait(20)

    def take_slowly(grant: SqliteGrant, *arguments: Any) -> bool:
        if moment == "before":
            pause()
        taken = take(grant, *arguments)
        if moment == "after":
            pause()
        return taken

    def free_at_once(provider: SqliteLocks, grant: SqliteGrant) -> None:
        free(provider, grant)
        freed.set()

    async def cancel() -> None:
        async with AsyncClient("memory://a", locks=locks, timeout=20) as cancelled:
            task = asyncio.create_task(cancelled.lock("report", ttl=600).try_acquire())
            await asyncio.to_thread(paused.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(freed.wait, 20)
            go_on.set()

    monkeypatch.setattr(SqliteGrant, "take", take_slowly)
    monkeypatch.setattr(SqliteLocks, "_free", free_at_once)
    asyncio.run(cancel())
    monkeypatch.undo()
    eventually(lambda: client.lock("report").try_acquire(), within=20)


def test_a_locked_file_is_unavailable(client: Client, tmp_path: Path):
    """A call waits no longer than its deadline, and the error names the file."""
    client.lock("report").acquire().release()
    other = sqlite3.connect(tmp_path / "locks.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(LockUnavailable, match=r"locks\.sqlite cannot be used: database is locked"):
        client.lock("report").acquire()
    assert time.monotonic() - began < 5
    other.close()
    assert client.lock("report").acquire().release() is True


@pytest.mark.parametrize("url", ["sqlite://shop", "sqlite://shop?file=x&mode=ro"])
def test_other_urls_are_refused(url: str):
    """The error says how to write one."""
    with pytest.raises(ConfigurationError, match="write sqlite://NAME"):
        Client("memory://a", locks=url)
