"""Cancelled calls, forks, loops one after the other, and a longer life among faults."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from faults.chaos import Chaos, process_faults
from faults.findings import Finding, at_least, at_most, holds, none
from faults.scenes.common import BACK, judge_values, warm_up
from faults.stage import KEYS, NODES, Play, Stage
from faults.usage import Usage, growth
from faults.values import Wrong

HERE: Final = Path(__file__).parents[2]
CHILDREN: Final = 4
THREADS_END: Final = 10.0  # seconds
PATIENT: Final = 2.0  # seconds; where every call is to be answered, on a busy machine too


def cancelled(stage: Stage) -> Iterator[Finding]:
    """Cancel reads at random moments, then read on (C2)."""
    count = 2_000 if stage.quick else 12_000
    with stage.play(subject="faults.lives:CancelledPlayer", timeout=PATIENT) as play:
        play.actor.tell("read_all", list(range(100)))
        before = play.usage()
        tally = play.actor.tell("cancel_many", count)
        after = play.usage()
        following = play.actor.tell("read_all", list(range(KEYS)))
    yield at_least("cancelled", tally["cancelled"], count)
    yield at_most("descriptors", after.descriptors, before.descriptors)
    yield at_most("tasks", after.tasks, before.tasks)
    yield none("next reads that were not hits", KEYS - following["hit"])
    yield from _judge_tallies([tally, following])


def forked(stage: Stage) -> Iterator[Finding]:
    """Fork four children of a process whose client is in use (C4)."""
    calls = 200 if stage.quick else 2_000
    subject = f"faults.lives:Forking{'Threads' if stage.crew.blocking else 'Tasks'}"
    with stage.play(subject=subject, timeout=PATIENT) as play:
        warm_up(play, 0.5)
        tallies = play.actor.tell("fork", CHILDREN, calls)
        report = play.end()
    hits = sum(tally["hit"] for tally in tallies)
    yield none("children that hung", sum(tally["hung"] for tally in tallies))
    yield none("children's reads that were not hits", CHILDREN * calls - hits)
    lost = report.tally["miss"] + report.tally["set not done"]
    yield none("parent's calls that failed", lost)
    yield from _judge_tallies([*tallies, report.tally])


def _judge_tallies(tallies: list[Counter[str]]) -> Iterator[Finding]:
    for what in Wrong:
        yield none(what, sum(tally[what] for tally in tallies))
    yield none("leaked", sum(tally["leaked"] for tally in tallies))


def reused(stage: Stage) -> Iterator[Finding]:
    """Run three event loops with one client, where every warning is an error (C5)."""
    with stage.serve() as servers:
        done = subprocess.run(
            [
                *[sys.executable, "-W", "error", "-X", "dev", "-m", "faults.reruns"],
                *(f"--without={rule}" for rule in stage.without),
                *(server.url for server in servers),
            ],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    yield none("exit status", done.returncode)
    last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
    yield holds("nothing on stderr", fact=not done.stderr, measured=last[0][:60])


def _settled(play: Play, threads: int) -> Usage:
    """Return what the process uses once there are no more threads than that, or after a while.

    One that deletes keys of a node that was out ends when it has had nothing to do for a moment.
    """
    until = time.monotonic() + THREADS_END
    while (usage := play.usage()).threads > threads and time.monotonic() < until:
        time.sleep(0.1)
    return usage


def lasting(stage: Stage) -> Iterator[Finding]:
    """Call during faults for a while; resource use must not grow (C8)."""
    seconds = stage.seconds(45.0, 6.0)
    with stage.play(rate=3000.0, keeps=False) as play:
        warm_up(play, 2.0)
        before = play.usage()
        with Chaos(process_faults(play.servers), seed=8, every=(1.0, 3.0)):
            samples = []
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(1.0)
                samples.append(play.usage())
        play.wait_closed(BACK)
        time.sleep(1.0)
        after = _settled(play, before.threads)
        report = play.end()
    settled = samples[len(samples) // 4 :]
    room = stage.crew.connections(NODES)
    calls = sum(report.tally[kind] for kind in ("hit", "miss", "set done", "set not done"))
    yield at_least("calls", calls, 0.5 * 3000 * seconds)
    if not stage.quick:  # too short to tell a trend
        yield at_most("memory", growth(settled), 1.0, "MiB/min")
    yield at_most("descriptors", after.descriptors, before.descriptors + room)
    yield at_most("threads", after.threads, before.threads)
    yield at_most("tasks", after.tasks, before.tasks)
    yield from judge_values(report)
