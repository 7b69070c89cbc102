"""Expectations that many rows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from faults.calls import Call
from faults.findings import Finding, at_least, at_most, none, within
from faults.players import Report
from faults.stage import NODES, RATE, Play, Stage, sleep_until
from faults.values import Wrong
from stampede.figures import percentile

Scene = Callable[[Stage], Iterator[Finding]]

WARM: Final = 0.5  # seconds that are not measured
BASE: Final = 3.0  # seconds before the fault, with which the rest is compared
SLOWEST_PROBE: Final = 5.0  # seconds
BACK: Final = SLOWEST_PROBE + 1.0  # seconds within which a node is asked again
SLOW: Final = 0.050  # seconds


def judge_values(*reports: Report) -> Iterator[Finding]:
    """Expect values, none of them wrong, and no undocumented exception."""
    yield at_least("hits", min(report.tally["hit"] for report in reports), 1)
    for what in Wrong:
        yield none(what, sum(report.tally[what] for report in reports))
    leaked = sum(report.tally["leaked"] for report in reports)
    kinds = {kind for report in reports for kind in report.tally if kind.startswith("leaked: ")}
    yield none(", ".join(["leaked", *sorted(kinds)[:2]]), leaked)


def judge_healthy(
    report: Report, base: Sequence[Call], began: float, ended: float, *struck: int
) -> Iterator[Finding]:
    """Expect that calls to other nodes take no longer than before."""
    others = [node for node in range(NODES) if node not in struck]
    usual = p99(base)
    yield within(
        "p99, healthy nodes",
        p99(report.between(began, ended, *others)),
        max(2 * usual, usual + 0.005),
    )


def judge_rate(report: Report, began: float, ended: float) -> Finding:
    """Require that nearly all due calls were made."""
    made = len(report.between(began, ended)) / (RATE * (ended - began))
    return at_least("made of those due", 100 * made, 97, "%", timed=True)


def judge_slow(report: Report, began: float, ended: float) -> Finding:
    """Expect few slow calls in a whole outage."""
    slow = sum(call.seconds > SLOW for call in report.between(began - SLOW, ended))
    return at_most("calls over 50 ms", slow, 25, timed=True)


def p99(calls: Sequence[Call]) -> float:
    """Return the 99th percentile of how long calls took; infinity for none."""
    return percentile([call.seconds for call in calls], 0.99) if calls else float("inf")


def warm_up(play: Play, seconds: float = BASE) -> float:
    """Start the crew, and wait until it is warm; return when measuring begins."""
    due = play.begin()
    sleep_until(due + WARM)
    play.reset_lag()
    sleep_until(due + WARM + seconds)
    return due + WARM
