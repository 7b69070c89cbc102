"""Nodes that are added and removed under load."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from faults.calls import Call
from faults.findings import Finding, at_least, at_most, none, shown
from faults.players import Report
from faults.scenes.common import judge_values, warm_up
from faults.stage import KEYS, Stage, sleep_until

NODES: Final = 4
PATIENT: Final = 1.0  # seconds; a miss is to be one of the cache, not of a busy machine
WARM_FOR: Final = 60.0  # seconds
STEP: Final = 4.0  # seconds that are judged after each change
WINDOW: Final = 0.5  # seconds; the hit rate must hold in each
APART: Final = 3.0  # seconds between the switches of two clients
DELETES: Final = 0.3  # of all writes


def added(stage: Stage) -> Iterator[Finding]:
    """Add a fourth node to three; once all of its keys have been read, remove it (B5)."""
    seconds = stage.seconds(STEP, 2.0)
    with stage.play(NODES, subject=_subject(stage), timeout=PATIENT, filled=False) as play:
        three, four = list(play.urls[:-1]), list(play.urls)
        play.actor.tell("switch", 0, three, 0.0)
        play.actor.tell("fill_now")
        base = warm_up(play, seconds)
        moments, moved = [], []
        for urls in (four, three):
            # A change ends the warm-up before it: what is not copied by then would be missed.
            play.actor.tell("read_all", list(range(KEYS)))
            began = time.monotonic()
            moved.append(play.actor.tell("switch", 0, urls, WARM_FOR))
            moments.append((began, time.monotonic() + seconds))
            sleep_until(moments[-1][1])
        counted = play.actor.tell("moving")
        report = play.end()
    usual = _hit_rate(report.between(base, moments[0][0]))
    yield shown("hit rate before", f"{usual:.1f} %")
    for what, (began, ended) in zip(("added", "removed"), moments, strict=True):
        worst = _least_hit_rate(report, began, ended)
        yield at_least(f"least hit rate, {what}", worst, usual - 1, "%")
    for what, share in zip(("added", "removed"), moved, strict=True):
        yield at_most(f"moved, {what}", 100 * share, 100 / NODES + 2, "%")
    yield shown("copied after the removal", f"{counted.get('copied', 0):,.0f}")
    yield from judge_values(report)


def replaced(stage: Stage) -> Iterator[Finding]:
    """Move all keys from three nodes to three of the other kind (B5)."""
    seconds = stage.seconds(2 * STEP, 3.0)
    other = replace(stage, kind="memcached" if stage.kind == "redis" else "redis")
    with (
        other.serve(NODES - 1) as servers,
        stage.play(NODES - 1, subject=_subject(stage), timeout=PATIENT) as play,
    ):
        base = warm_up(play, seconds / 2)
        began = time.monotonic()
        play.actor.tell("switch", 0, [server.url for server in servers], WARM_FOR)
        sleep_until(began + PATIENT + seconds)
        counted = play.actor.tell("moving")
        report = play.end()
    usual = _hit_rate(report.between(base, began))
    worst = _least_hit_rate(report, began, began + PATIENT + seconds)
    yield at_least("least hit rate", worst, usual - 1, "%")
    yield at_least("copied", counted.get("copied", 0), 1)
    yield from judge_values(report)


def apart(stage: Stage) -> Iterator[Finding]:
    """Change the nodes of two clients that share nothing, one after the other (B5)."""
    seconds = stage.seconds(STEP, 2.0)
    with stage.play(
        NODES,
        subject=_subject(stage),
        timeout=PATIENT,
        filled=False,
        ways=("miss", "miss"),
        deletes=DELETES,
        keys=300,
    ) as play:
        three, four = list(play.urls[:-1]), list(play.urls)
        for client in (0, 1):
            play.actor.tell("switch", client, three, 0.0)
        play.actor.tell("fill_now")
        warm_up(play, 1.0)
        play.actor.tell("announce", four)
        time.sleep(PATIENT)
        for client in (0, 1):
            play.actor.tell("switch", client, four, WARM_FOR)
            time.sleep(APART if client == 0 else seconds)
        counted = play.actor.tell("moving")
        report = play.end()
    yield at_least("copied", counted.get("copied", 0), 1)
    yield none("writes not done", report.tally["set not done"])
    yield from judge_values(report)


def _subject(stage: Stage) -> str:
    return f"faults.moving:Moving{'Threads' if stage.crew.blocking else 'Tasks'}"


def _least_hit_rate(report: Report, began: float, ended: float) -> float:
    """Return the least hit rate of a short while within a time, in percent."""
    return min(
        _hit_rate(report.between(began + place * WINDOW, began + (place + 1) * WINDOW))
        for place in range(int((ended - began) / WINDOW))
    )


def _hit_rate(calls: Sequence[Call]) -> float:
    """Return the hits of all reads, in percent; 100 without a read."""
    hits = sum(call.outcome == "hit" for call in calls)
    reads = hits + sum(call.outcome == "miss" for call in calls)
    return 100 * hits / reads if reads else 100.0
