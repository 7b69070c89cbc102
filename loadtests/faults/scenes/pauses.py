"""Pauses of the calling process, short-lived loops, and large replies before small ones."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from faults.findings import Finding, at_least, none, shown, within
from faults.large import LARGE, large_key, large_value
from faults.players import Report
from faults.scenes.common import BACK, judge_values, warm_up
from faults.stage import KEYS, TIMEOUT, Play, Stage
from shardcache import Client
from shardcache.testing.servers import Server

Pauses: TypeAlias = list[tuple[float, float]]  # from when to when, in monotonic seconds

BLOCKED: Final = 0.6  # seconds for which a loop stands still
EVERY: Final = 5.0  # seconds from one such time to the next
SUSPENDED: Final = 0.7  # seconds for which the process is stopped
HUB_SECONDS: Final = 50.0


def paused(stage: Stage) -> Iterator[Finding]:
    """Pause the calling process while all nodes are well (L1)."""
    with stage.play(timeout=_timeout(stage)) as play:
        warm_up(play, 1.0)
        pauses: Pauses = []
        if not stage.crew.blocking:
            pauses += _block_loop(play, 1 if stage.quick else 3)
        pauses += _suspend(play, 2 if stage.quick else 6)
        time.sleep(0.5)
        report = play.end()
    yield from _judge_pauses(stage, report, pauses)


def _timeout(stage: Stage) -> float:
    """Return the timeout, shorter than each pause; on a busy machine a server may take a while."""
    return stage.seconds(TIMEOUT, 0.4)


def busy_hub(stage: Stage) -> Iterator[Finding]:
    """Keep the hub of gevent busy, while all nodes are well (L1)."""
    with stage.serve() as servers:
        part = stage.part(tuple(server.url for server in servers), timeout=_timeout(stage))
        order = pickle.dumps((part, 2 if stage.quick else 3, 2.0 if stage.quick else EVERY))
        done = subprocess.run(
            [sys.executable, "-m", "faults.hub"],
            input=order,
            capture_output=True,
            timeout=HUB_SECONDS,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the program under gevent failed: {done.stderr.decode()[-500:]}")
    report, pauses = pickle.loads(done.stdout)
    yield from _judge_pauses(stage, report, pauses)


def _block_loop(play: Play, count: int) -> Iterator[tuple[float, float]]:
    for turn in range(count):
        if turn:
            time.sleep(EVERY - BLOCKED)
        yield play.actor.tell("block_loop", BLOCKED)
    time.sleep(0.5)


def _suspend(play: Play, count: int) -> Iterator[tuple[float, float]]:
    for _ in range(count):
        began = time.monotonic()
        play.actor.pause()
        time.sleep(SUSPENDED)
        play.actor.resume()
        yield began, time.monotonic()
        time.sleep(0.6)


def _judge_pauses(stage: Stage, report: Report, pauses: Pauses) -> Iterator[Finding]:
    yield none("times left out", len(report.moments("ejected")))
    misses = [call for call in report.calls if call.outcome in ("miss", "set not done")]
    beyond = [
        call
        for call in misses
        if not any(began - TIMEOUT <= call.began < ended for began, ended in pauses)
    ]
    if not stage.quick:  # a busy machine has more pauses than these
        yield none("misses beyond calls in a pause", len(beyond))
    yield from judge_values(report)


def reran(stage: Stage) -> Iterator[Finding]:
    """Kill and stop a node under a program with one `asyncio.run` for each call (L2)."""
    faults: dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]] = {
        "killed": (Server.kill, Server.restart),
        "stopped": (Server.pause, Server.resume),
    }
    with stage.play(2, rate=100.0) as play:
        warm_up(play, 0.5)
        for name, (strike, repair) in faults.items():
            strike(play.servers[0])
            time.sleep(4.0)
            repair(play.servers[0])
            yield within(f"asked again after it was {name}", play.wait_closed(BACK), BACK)
            time.sleep(0.5)
        report = play.end()
    yield at_least("times left out", len(report.moments("ejected")), len(faults))
    yield from judge_values(report)


READERS: Final = 4
DROP: Final = 64 * 1024  # bytes that pass at a time, so that a large value takes longer than a call


def behind_large(stage: Stage) -> Iterator[Finding]:
    """Read small values behind four large ones on one connection, at two speeds (L3)."""
    arguments = ("-I", "16m", "-m", "256")
    with stage.play(
        1,
        arguments=arguments,
        query=f"?max_value_bytes={2 * LARGE}",
        proxied=True,
        subject="faults.large:LargePlayer",
        keys=KEYS // 4,
        timeout=_timeout(stage),
    ) as play:
        _store_large(play.urls)
        warm_up(play, 0.5)
        read = play.actor.tell("read_large", READERS, stage.seconds(4.0, 1.0))
        play.proxies[0].drip(DROP, 0.002)
        slowly = play.actor.tell("read_large", READERS, stage.seconds(4.0, 2.0))
        play.proxies[0].heal()
        report = play.end()
    yield none("times left out", len(report.moments("ejected")))
    yield shown("large values read", f"{read['read']:,}, slowly {slowly['read']:,}")
    yield none("large values that were not right", read["wrong"] + slowly["wrong"])
    yield none("exceptions of their readers", read["leaked"] + slowly["leaked"])
    yield from judge_values(report)


def _store_large(urls: Sequence[str]) -> None:
    with Client(urls, timeout=10, on_error="raise") as client:
        for number in range(READERS):
            client.set(large_key(number), large_value(number, LARGE))
