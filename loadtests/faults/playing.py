"""A row played by one crew on one kind of servers, again when the machine was too busy."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

from faults.findings import Finding
from faults.lag import VOID, LagMeter
from faults.rows import Row
from faults.stage import Crew, Stage

WATCHDOG: Final = 90.0  # seconds; a row takes less than 60, and tidies up
TRIES: Final = 3


class TimeUpError(Exception):
    """A row took longer than it may."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a row: its findings, what it raised, and how busy the machine was meanwhile.

    `lag` is that of a sleeper beside it, `crew_lag` that of one among the callers, in seconds.
    """

    row: Row
    crew: Crew
    kind: str
    findings: Sequence[Finding]
    error: str | None
    lag: float
    crew_lag: float
    tries: int
    seconds: float

    @property
    def missed(self) -> list[Finding]:
        """Return what did not hold; of times, unless they are void."""
        return [f for f in self.findings if not f.held and not (f.timed and self.void)]

    @property
    def void(self) -> bool:
        """Return whether times were judged while the machine was too busy for that."""
        timed = any(finding.timed for finding in self.findings)
        return timed and max(self.lag, self.crew_lag) > VOID

    @property
    def verdict(self) -> str:
        """Return `held`, `MISSED` or `VOID`."""
        if self.error or self.missed:
            return "MISSED"
        return "VOID" if self.void else "held"

    def plain(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "row": self.row.name,
            "fault": self.row.fault,
            "client": self.crew.name,
            "servers": self.kind,
            "verdict": self.verdict,
            "error": self.error,
            "lag": round(self.lag, 4),
            "crew_lag": round(self.crew_lag, 4),
            "tries": self.tries,
            "seconds": round(self.seconds, 1),
            "findings": [asdict(finding) for finding in self.findings],
        }


def play(row: Row, crew: Crew, kind: str, *, quick: bool, without: tuple[str, ...]) -> Played:
    """Play a row, and again as long as its times are void and nothing else is missed.

    With `quick` no times are judged.
    """
    for turn in range(1, TRIES + 1):
        began = time.monotonic()
        stage = Stage(kind, crew, quick, without, lags=[])
        findings: list[Finding] = []
        error = None
        with LagMeter() as meter:
            try:
                with _bounded(WATCHDOG):
                    findings.extend(f for f in row.scene(stage) if not (quick and f.timed))
            except Exception as raised:  # noqa: BLE001 - a row that fails is shown, others follow
                error = f"{type(raised).__name__}: {raised}"
        seconds = time.monotonic() - began
        crew_lag = max(stage.lags, default=0.0)
        played = Played(row, crew, kind, findings, error, meter.worst, crew_lag, turn, seconds)
        if played.verdict != "VOID":
            break
    return played


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise in the block when it takes longer."""

    def expired(_signal: int, _frame: object) -> None:
        raise TimeUpError(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
