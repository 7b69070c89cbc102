"""Who ran the function under test, and when: written by the function, read by the harness."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_numbers = count()


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the function, in monotonic seconds; `ended` is `None` when its process died."""

    name: str
    pid: int
    begun: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """A file to which each run appends two lines, whatever the cache under test believes."""

    path: str

    @contextmanager
    def run(self, item: str = "") -> Iterator[str]:
        """Write down that a run begins and, unless its process dies, that it ends; return its name.

        The name ends with the `item` that is computed, if it is one of many.
        """
        name = f"{os.getpid()}:{threading.get_ident()}:{next(_numbers)}:{item}"
        self._write(name, "begun")
        try:
            yield name
        finally:
            self._write(name, "ended")

    def runs(self) -> list[Run]:
        """Return all runs so far, in the order in which they began."""
        begun: dict[str, float] = {}
        ended: dict[str, float] = {}
        for line in Path(self.path).read_text().splitlines():
            name, what, moment = line.split()
            (begun if what == "begun" else ended)[name] = float(moment)
        runs = [
            Run(name, int(name.split(":")[0]), at, ended.get(name)) for name, at in begun.items()
        ]
        return sorted(runs, key=lambda run: run.begun)

    def await_runs(self, number: int) -> list[Run]:
        """Return the runs once there are enough; the watchdog ends an endless wait."""
        while len(runs := self.runs()) < number:
            time.sleep(0.002)
        return runs

    def _write(self, name: str, what: str) -> None:
        # One small write to a file opened so is never mixed with another's.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{name} {what} {time.monotonic():.6f}\n".encode())
        finally:
            os.close(descriptor)
