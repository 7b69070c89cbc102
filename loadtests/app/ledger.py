"""A file to which every run of the source appends a line: counted outside the cache."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the source: for which page, in which process, and when it began (monotonic)."""

    page: str
    pid: int
    moment: float


def append_run(path: str | Path, page: str) -> None:
    """Append a run of this process that begins now."""
    # One small write to a file opened for appending is never mixed with another process's.
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{page} {os.getpid()} {time.monotonic():.6f}\n")


def read_runs(path: str | Path) -> list[Run]:
    """Return the runs of all processes so far, in the order in which they began."""
    file = Path(path)
    text = file.read_text(encoding="ascii") if file.exists() else ""
    complete, _, _ = text.rpartition("\n")  # a line without its end is still being written
    lines = [line.split() for line in complete.splitlines()]
    runs = [Run(page, int(pid), float(moment)) for page, pid, moment in lines]
    return sorted(runs, key=lambda run: run.moment)


def count_by_page(runs: Iterable[Run]) -> Counter[str]:
    """Return how often each page ran the source."""
    return Counter(run.page for run in runs)
