"""Nodes that stop, die, flap, or are all gone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from faults.findings import Finding, at_most, holds, within
from faults.players import Report
from faults.scenes.common import (
    BACK,
    judge_healthy,
    judge_rate,
    judge_slow,
    judge_values,
    p99,
    warm_up,
)
from faults.stage import NODES, TIMEOUT, Stage, sleep_until
from faults.usage import Usage
from shardcache.testing.servers import Server

OUTAGE: Final = 8.0  # seconds
STRUCK: Final = 0  # the place of the node
LONGEST_ABSENCE: Final = 15.0  # seconds for which is waited, so that it can be shown
SETTLED: Final = 0.5  # seconds after which an outage costs nothing any more


def stopped(stage: Stage) -> Iterator[Finding]:
    """Stop one of five nodes, then resume it (A1)."""
    report, base, began, ended = _outage(stage, Server.pause, Server.resume)
    yield within("left out after", report.first("ejected", STRUCK, began), 0.35)
    yield from _judge_outage(report, base, began, ended)


def killed(stage: Stage) -> Iterator[Finding]:
    """Kill one of five nodes, then start it again, empty (A2)."""
    report, base, began, ended = _outage(stage, Server.kill, Server.restart)
    failed = report.first("failed", STRUCK, began)
    after = None if failed is None else report.first("ejected", STRUCK, began + failed)
    yield within("left out after its first error", after, 0.010)
    yield from _judge_outage(report, base, began, ended)


def _outage(
    stage: Stage, strike: Callable[[Server], None], repair: Callable[[Server], None]
) -> tuple[Report, float, float, float]:
    with stage.play() as play:
        base = warm_up(play)
        began = time.monotonic()
        strike(play.servers[STRUCK])
        sleep_until(began + OUTAGE)
        repair(play.servers[STRUCK])
        ended = time.monotonic()
        play.wait_closed(BACK)
        time.sleep(SETTLED)
        return play.end(), base, began, ended


def _judge_outage(report: Report, base: float, began: float, ended: float) -> Iterator[Finding]:
    yield from judge_healthy(report, report.between(base, began), began, ended, STRUCK)
    yield judge_rate(report, began, ended)
    yield judge_slow(report, began, ended)
    ejected = report.first("ejected", STRUCK, began) or 0.0
    away = report.between(began + ejected + 0.01, ended, STRUCK)
    yield within("p99, its keys while it is out", p99(away), 0.001)
    yield within("asked again after", report.first("restored", STRUCK, ended), BACK)
    yield from judge_values(report)


def churn(stage: Stage) -> Iterator[Finding]:
    """Kill a random node every two seconds, and start it again a second later (A4)."""
    turns = 3 if stage.quick else 20
    chance = random.Random(4)
    with stage.play() as play:
        warm_up(play, 1.0)
        before = play.usage()
        began = restarted = time.monotonic()
        for turn in range(turns):
            server = chance.choice(play.servers)
            server.kill()
            sleep_until(began + 2 * turn + 1)
            server.restart()
            restarted = time.monotonic()
            sleep_until(began + 2 * turn + 2)
        closed = play.wait_closed(LONGEST_ABSENCE)
        yield within(
            "all asked again after", None if closed is None else time.monotonic() - restarted, 3.0
        )
        time.sleep(SETTLED)
        after = play.usage()
        report = play.end()
    room = before.descriptors + stage.crew.connections(NODES)
    yield at_most("descriptors", after.descriptors, room)
    yield from judge_values(report)


def flapping(stage: Stage) -> Iterator[Finding]:
    """Stop a node for 0.3 s of each second (A5)."""
    with stage.play() as play:
        base = warm_up(play)
        began = time.monotonic()
        for turn in range(20):
            play.servers[STRUCK].pause()
            sleep_until(began + turn + 0.3)
            play.servers[STRUCK].resume()
            sleep_until(began + turn + 1)
        ended = time.monotonic()
        report = play.end()
    yield at_most("times left out", len(report.moments("ejected", STRUCK)), 6)
    yield from judge_healthy(report, report.between(base, began), began, ended, STRUCK)
    yield from judge_values(report)


def all_stopped(count: int, stage: Stage) -> Iterator[Finding]:
    """Stop several of five nodes at once, then resume them (A6)."""
    # One thread that waits for a node makes no other call: it has to be asked more slowly.
    rate = 1000.0 if stage.crew.workers > 1 else 200.0
    learning = SETTLED if stage.crew.workers > 1 else 3 * TIMEOUT * count + SETTLED
    down = range(count)
    with stage.play(rate=rate) as play:
        warm_up(play, 0.0)
        before = play.usage()
        time.sleep(2.0)
        began = play.usage()
        for node in down:
            play.servers[node].pause()
        struck = time.monotonic()
        sleep_until(struck + learning)
        settled = play.usage()
        time.sleep(4.0)
        over = play.usage()
        for node in down:
            play.servers[node].resume()
        resumed = time.monotonic()
        recovered = play.wait_closed(BACK)
        time.sleep(1.0)
        report = play.end()
    yield within("all left out after", _last_ejection(report, down, struck), learning)
    away = report.between(settled.at, over.at, *down)
    yield within("p99, their keys after 0.5 s", p99(away), 0.001)
    waited = sum(call.seconds for call in away)
    share = waited / stage.crew.workers / (over.at - settled.at)
    yield at_most("time spent on those out", 100 * share, 5, "%", timed=True)
    if count < NODES:
        base = report.between(before.at, began.at)
        yield from judge_healthy(report, base, settled.at, over.at, *down)
    rise = _load(settled, over) / _load(before, began)
    yield at_most("processor time over base", rise, 1.5, "times", timed=True)
    yield within("all asked again after", recovered, BACK)
    calls = report.between(resumed + (recovered or 0.0) + 0.2, report.ended)
    hits = {call.node for call in calls if call.outcome == "hit"}
    yield holds("hits on every node", fact=len(hits) == NODES, measured=f"on {len(hits)}")
    yield from judge_values(report)


def _last_ejection(report: Report, nodes: Sequence[int], after: float) -> float | None:
    firsts = [report.first("ejected", node, after) for node in nodes]
    return None if None in firsts else max(first for first in firsts if first is not None)


def _load(began: Usage, ended: Usage) -> float:
    """Return the processor time per second."""
    return (ended.cpu - began.cpu) / (ended.at - began.at)
