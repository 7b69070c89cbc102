"""The log of recomputes: a line at once for each function, then one a minute."""

from __future__ import annotations

import pytest

from shardcache.clients.recompute_log import MAX_FUNCTIONS, RecomputeLog
from shardcache.core.values.typed import InvalidValueError
from shardcache.errors import EncodeError


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """Return a clock."""
    return Clock()


KINDS = [
    (
        "refresh_failed",
        ValueError("hunter2"),
        "refreshing app:f failed{}: ValueError; the cached value is served",
    ),
    (
        "result_not_stored",
        EncodeError("no such form"),
        "storing the result of app:f failed{}: no such form; it is returned uncached",
    ),
    (
        "value_not_valid",
        InvalidValueError("not a valid User"),
        "reading the value of app:f failed{}: not a valid User; it is recomputed",
    ),
]


@pytest.mark.parametrize(("method", "error", "line"), KINDS)
def test_a_function_has_one_line_a_minute(clock, caplog, method, error, line):
    """It tells how often that happened since."""
    note = getattr(RecomputeLog(clock), method)
    for second in range(121):
        clock.now = float(second)
        note("app:f", error)
    assert [record.getMessage() for record in caplog.records] == [
        line.format(""),
        line.format(" 60 times in 60 s"),
        line.format(" 60 times in 60 s"),
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    note("app:g", error)
    assert len(caplog.records) == 4


def test_each_trouble_of_a_function_has_its_own_line(clock, caplog):
    """A result that cannot be stored hides no failing refresh."""
    log = RecomputeLog(clock)
    for method, error, _ in KINDS * 2:
        getattr(log, method)("app:f", error)
    assert len(caplog.records) == len(KINDS)


def test_many_functions_share_a_line(clock, caplog):
    """What is remembered is bounded."""
    log = RecomputeLog(clock)
    for number in range(MAX_FUNCTIONS + 10):
        log.refresh_failed(f"app:f{number}", ValueError())
    assert len(caplog.records) == MAX_FUNCTIONS + 1
    assert "refreshing other functions failed" in caplog.text
