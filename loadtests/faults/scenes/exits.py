"""Programs that end while there is still something to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from faults.exits import KEY, VALUE, WAYS
from faults.findings import Finding, holds, none, within
from faults.stage import Stage
from shardcache import Client

HERE: Final = Path(__file__).parents[2]
NODES: Final = 3
SOON: Final = 0.5  # seconds
HUNG: Final = 10.0  # seconds


class Ended(NamedTuple):
    """How a program ended: its exit status, what it wrote to stderr, the seconds from its last line."""

    status: int
    stderr: str
    seconds: float | None


def ended(stage: Stage) -> Iterator[Finding]:
    """End with calls in flight to a stopped node, in handlers of the exit, in finalizers (C7)."""
    with stage.serve(NODES) as servers:
        urls = [stage.url_of(server) for server in servers]
        written = None
        for how in WAYS:
            if how == "in-flight":
                servers[0].pause()
            program = _run(stage, how, urls)
            if how == "in-flight":
                servers[0].resume()
            if how == "handler":
                with Client(urls, timeout=5) as client:
                    written = client.get(KEY)
            yield none(f"exit status, {how}", program.status)
            yield holds(
                f"nothing on stderr, {how}",
                fact=not program.stderr,
                measured=(program.stderr.strip().splitlines()[-1:] or ["nothing"])[0][:60],
            )
            yield holds(f"ends, {how}", fact=program.seconds is not None)
            yield within(f"from its last line to its end, {how}", program.seconds, SOON)
        yield none("handlers' writes that did not arrive", written != VALUE)


def _run(stage: Stage, how: str, urls: list[str]) -> Ended:
    client = "threads" if stage.crew.blocking else "tasks"
    without = [f"--without={rule}" for rule in stage.without]
    with subprocess.Popen(
        [sys.executable, "-m", "faults.exits", how, client, *urls, *without],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            stdout, stderr = program.communicate(timeout=HUNG)
        except subprocess.TimeoutExpired:
            program.kill()
            return Ended(-1, program.communicate()[1], None)
        over = time.monotonic()
    last = float(stdout) if stdout else None
    return Ended(program.returncode, stderr, None if last is None else over - last)
