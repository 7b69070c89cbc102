"""Calls that signals and gevent's timeouts break off."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from faults.findings import Finding, at_least, at_most, none
from faults.interrupting import KEYS, Broken
from faults.looping import HUNG
from faults.stage import Stage

NODES: Final = 3
POOL: Final = 2  # connections to a node
PATIENT: Final = 5.0  # seconds; no call is to fail by itself
THREADS_END: Final = 10.0  # seconds within which idle threads end
PROGRAM_SECONDS: Final = 60.0


def interrupted(stage: Stage) -> Iterator[Finding]:
    """Interrupt calls of the main thread by signals whose handler raises (C3)."""
    count = 500 if stage.quick else 5_000
    subject = "faults.interrupting:Interrupted"
    with stage.play(NODES, subject=subject, filled=False, **_options(POOL)) as play:
        broken: Broken = play.actor.tell("interrupt", count, stage.seconds(THREADS_END, 0.0))
    yield from _judge(stage, broken, count, POOL)


def looped(stage: Stage) -> Iterator[Finding]:
    """Interrupt an event loop by signals whose handler raises, and time its calls out (C3)."""
    count = 500 if stage.quick else 5_000
    subject = "faults.looping:InterruptedLoop"
    part = {**_options(POOL), "timeout": HUNG / 2}
    with stage.play(NODES, subject=subject, filled=False, **part) as play:
        broken: Broken = play.actor.tell("interrupt", count, stage.seconds(THREADS_END, 0.0))
    yield from _judge(stage, broken, count, POOL)
    yield none("calls that hung", broken.tally["hung"])


def timed_out(stage: Stage) -> Iterator[Finding]:
    """Break calls of greenlets off by gevent's timeouts (C3)."""
    count = 1_000 if stage.quick else 5_000
    pool = 2 * POOL
    with stage.serve(NODES) as servers:
        part = stage.part(tuple(map(stage.url_of, servers)), **_options(pool))
        done = subprocess.run(
            [sys.executable, "-m", "faults.greenlets"],
            input=pickle.dumps((part, count, stage.seconds(THREADS_END, 0.0))),
            capture_output=True,
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the program under gevent failed: {done.stderr.decode()[-500:]}")
    yield from _judge(stage, pickle.loads(done.stdout), count, pool)


def _options(pool: int) -> dict[str, Any]:
    return {"timeout": PATIENT, "options": {"pool_size": pool}}


def _judge(stage: Stage, broken: Broken, count: int, pool: int) -> Iterator[Finding]:
    tally, before, after = broken
    yield at_least("calls broken off", tally["interrupts"], count)
    yield none("wrong answers", tally["wrong"])
    kinds = sorted(kind for kind in tally if kind.startswith("leaked: "))
    yield none(", ".join(["leaked", *kinds[:2]]), tally["leaked"])
    yield none("next reads that were not hits", len(KEYS) - tally["found afterwards"])
    yield none("slots lost", tally["lost"])
    yield at_most("descriptors", after.descriptors, before.descriptors + NODES * pool)
    if not stage.quick:  # which does not wait for idle ones to end
        yield at_most("threads", after.threads, before.threads)
    yield none("threads that an error ended", tally["dead"])
    yield none("other descriptors closed or written", tally["harmed"])
