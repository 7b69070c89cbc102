"""A holder that is stopped for longer than its session lasts, and what its late write meets."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing

SESSION = 3.0  # seconds, as in the fixture `url`


def test_a_late_write_is_refused(url, start, tmp_path):
    """The next holder's fence is larger, so the database refuses the first one, which learns of its loss."""
    database = tmp_path / "reports.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TABLE reports (id INTEGER PRIMARY KEY, text TEXT, fence INTEGER)"
        )
        connection.execute("INSERT INTO reports VALUES (1, '', 0)")
    paused, other = start(url), start(url)
    other.ask("acquire", "another", SESSION)
    first = paused.ask("acquire", "report", SESSION)
    paused.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    second = other.ask("acquire", "report", SESSION)
    assert time.monotonic() - stopped > SESSION / 2
    assert second > first
    assert other.ask("write", str(database), "new") is True
    paused.signal(signal.SIGCONT)
    resumed = time.monotonic()
    assert paused.ask("write", str(database), "late") is False
    valid, lost, _ = paused.ask("state")
    assert (valid, lost) == (False, True)
    while paused.ask("state")[2] == 0:
        assert time.monotonic() - resumed < SESSION
        time.sleep(0.05)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT text, fence FROM reports").fetchall() == [("new", second)]
    assert other.ask("state") == [True, False, 0]
    assert paused.ask("release") is False
    assert other.ask("release") is True


def test_a_killed_holder_is_replaced_when_its_session_ends(url, start):
    """No sooner than it may still act, and about a tick later."""
    killed, other = start(url), start(url)
    other.ask("acquire", "another", SESSION)
    killed.ask("acquire", "report", SESSION)
    killed.signal(signal.SIGKILL)
    began = time.monotonic()
    other.ask("acquire", "report", SESSION)
    assert SESSION / 2 < time.monotonic() - began < 3 * SESSION
