"""What all cases share: the plan, the time that is left, and who takes part."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from bench.peers import Attendance
from bench.rounds import FULL, Figure, Plan, Subject, run_interleaved

MINUTES: Final = 10.0
RESERVE: Final = 180.0  # seconds that a run at its limit has left for its last cases


@dataclass(slots=True)
class Bench:
    """One run; its cases take as many rounds as fit into its time."""

    plan: Plan = FULL
    attendance: Attendance = field(default_factory=Attendance)
    seconds: float = MINUTES * 60
    started: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)  # groups that raised

    @property
    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def late(self) -> bool:
        """Return whether there is only time for a quarter of the rounds."""
        return self.elapsed > self.seconds - RESERVE

    def interleave(
        self, subjects: Mapping[str, Subject], *, calls: int | None = None, step: int = 1
    ) -> dict[str, Figure]:
        """Measure subjects in turn; see `run_interleaved`."""
        plan = self.plan
        if self.late:
            plan = replace(plan, seconds=plan.seconds / 4)
        return run_interleaved(subjects, plan, calls=calls, step=step)
