"""What a lock provider raises is counted each time, and logged once a minute."""

from __future__ import annotations

from shardcache.clients.swallowed_log import LockFailures
from shardcache.core.events import LockProviderFailed, Observers


def note(failures, error, call="release"):
    """Note an error."""
    failures.note(LockProviderFailed(b"report", call, error))


def test_a_failure_is_logged_once_a_minute(caplog):
    """With how often it happened; another error, or that of another method, has a line of its own."""
    now = [0.0]
    failures = LockFailures(Observers(), lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = second
        note(failures, OSError("full"))
    note(failures, OSError("full"), "end")
    note(failures, ValueError("odd"))
    assert failures.count == 12
    assert [record.getMessage() for record in caplog.records] == [
        "lock provider failed in release: OSError('full')",
        "lock provider failed in release 6 times in 60 s: OSError('full')",
        "lock provider failed in end: OSError('full')",
        "lock provider failed in release: ValueError('odd')",
    ]


def test_the_text_of_an_error_is_safe_in_a_terminal(caplog):
    """A service may have put anything into it."""

    class OddError(Exception):
        def __repr__(self):
            return "odd\x1b[2J"

    note(LockFailures(Observers()), OddError())
    assert r"odd\x1b[2J" in caplog.messages[0]
