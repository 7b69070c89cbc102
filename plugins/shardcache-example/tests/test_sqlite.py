"""The example backend keeps the contract of all backends, and its own promises."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shardcache_example.sqlite import AsyncSqliteBackend, SqliteBackend

from shardcache import Client, ConfigurationError, NodeTimeoutError
from shardcache.core.capabilities import DATES, EVERYTHING
from shardcache.testing.backend import ServerContract


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a new file."""
    return tmp_path / "cache.sqlite"


class TestSqlite(ServerContract):
    """The backend keeps the contract of all backends that several clients share."""

    @pytest.fixture
    def url(self, file: Path) -> str:
        """Return a node with a new file."""
        return f"sqlite://node?file={file}"


@pytest.fixture
def client(file: Path) -> Iterator[Client]:
    """Return a client of one node that raises its errors."""
    with Client(f"sqlite://node?file={file}", on_error="raise", timeout=0.2) as client:
        yield client


def test_it_supports_every_command():
    """No test of the contract is skipped. `DATES` are for servers that keep no expiry."""
    assert SqliteBackend.supports == AsyncSqliteBackend.supports == EVERYTHING - DATES


def test_values_outlive_the_client(client: Client, file: Path):
    """They are in the file."""
    client.set("k", [1, 2])
    client.close()
    with Client(f"sqlite://other?file={file}") as other:
        assert other.get("k") == [1, 2]


COUNT = """
import sys
from shardcache import Client
with Client(sys.argv[1], on_error="raise", timeout=10) as client:
    for _ in range(20):
        client.incr("n", initial=1)
"""


def test_processes_share_a_file(client: Client, file: Path):
    """None of their counts is lost."""
    command = [sys.executable, "-c", COUNT, f"sqlite://node?file={file}"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert client.get("n") == 40


def test_a_locked_file_is_a_timeout(client: Client, file: Path):
    """A call waits no longer than its deadline."""
    client.set("k", 1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(NodeTimeoutError, match="stayed locked"):
        client.get("k")
    assert time.monotonic() - began < 5
    other.close()
    assert client.get("k") == 1


def test_touch_brings_nothing_back(client: Client):
    """An expired value is gone, even while it is still in the file."""
    client.set("k", 1, ttl=0.05)
    time.sleep(0.1)
    assert client.touch("k", 60) is False
    assert client.get("k") is None


@pytest.mark.parametrize("url", ["sqlite://node", "sqlite://node?file=x&mode=ro"])
def test_other_urls_are_refused(url: str):
    """The error says how to write one."""
    with pytest.raises(ConfigurationError, match="write sqlite://node"):
        Client(url)
