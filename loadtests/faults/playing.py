"""Playing a row with one crew on one kind of servers; again if the machine was too busy."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from faults.findings import Finding
from faults.lag import VOID, Lag, LagMeter
from faults.rows import Guard, Row
from faults.stage import Crew, Stage

WATCHDOG: Final = 90.0  # seconds; a row takes less than 60, and tidies up


class TimeUpError(Exception):
    """A row took longer than it may."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A row, who plays it, and on which servers; with a `guard`, its rule is off."""

    row: Row
    crew: Crew
    kind: str
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a turn: its findings, its error, and how busy the machine was."""

    turn: Turn
    findings: Sequence[Finding]
    error: str | None
    lag: Lag
    tries: int
    seconds: float

    @property
    def missed(self) -> list[Finding]:
        """Return the findings that do not hold; times only if they are not void."""
        return [f for f in self.findings if not f.held and not (f.timed and self.void)]

    @property
    def void(self) -> bool:
        """Return whether times were judged while the machine was too busy for that."""
        timed = any(finding.timed for finding in self.findings)
        return timed and max(self.lag) > VOID

    @property
    def verdict(self) -> str:
        """Return `held`, `MISSED` or `VOID`; with a guard `misses`, as it must, `HOLDS` or `VOID`."""
        if self.turn.guard is not None:
            return self._verdict_of(self.turn.guard)
        if self.error or self.missed:
            return "MISSED"
        return "VOID" if self.void else "held"

    def _verdict_of(self, guard: Guard) -> str:
        """Return whether the figure was missed; an error that ended the row shows nothing of it."""
        if any(finding.name == guard.figure for finding in self.missed):
            return "misses"
        judged = [finding for finding in self.findings if finding.name == guard.figure]
        return "VOID" if self.void and any(finding.timed for finding in judged) else "HOLDS"

    @property
    def good(self) -> bool:
        """Return whether the verdict is as it must be."""
        return self.verdict in ("held", "misses")

    def plain(self) -> dict[str, object]:
        """Return it for JSON."""
        row, guard = self.turn.row, self.turn.guard
        return {
            "row": row.name,
            "fault": row.fault,
            "client": self.turn.crew.name,
            "servers": self.turn.kind,
            "without": None if guard is None else guard.rule,
            "verdict": self.verdict,
            "error": self.error,
            "lag": self.lag._asdict(),
            "tries": self.tries,
            "seconds": round(self.seconds, 1),
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Wish:
    """Options: short forms, rules that are off, how often to repeat when times are void."""

    quick: bool
    without: tuple[str, ...]
    tries: int


def play_all(turns: Sequence[Turn], wish: Wish, jobs: int) -> Iterator[Played]:
    """Play turns, `jobs` of them at a time; yield their results in order."""
    if jobs == 1:
        yield from (play(turn, wish) for turn in turns)
        return
    # Each process has its own alarm clock, for `time_limit`.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(play, wish=wish), turns)


def play(turn: Turn, wish: Wish) -> Played:
    """Play a turn; repeat it while only its times are void.

    Short forms judge no times.
    """
    without = wish.without if turn.guard is None else (*wish.without, turn.guard.rule)
    for tries in range(1, wish.tries + 1):
        began = time.monotonic()
        with LagMeter() as meter:
            stage = Stage(turn.kind, turn.crew, wish.quick, without, meter)
            findings, error = _judge(turn.row, stage)
        lag = _worst(stage.lags) if stage.lags else Lag(meter.worst)
        played = Played(turn, findings, error, lag, tries, time.monotonic() - began)
        if played.verdict != "VOID":
            break
    return played


def _judge(row: Row, stage: Stage) -> tuple[list[Finding], str | None]:
    findings: list[Finding] = []
    try:
        with time_limit(WATCHDOG):
            findings.extend(f for f in row.scene(stage) if not (stage.quick and f.timed))
    except Exception as raised:  # noqa: BLE001 - a row that fails is shown, and others follow
        return findings, f"{type(raised).__name__}: {raised}"
    return findings, None


def _worst(lags: Sequence[Lag]) -> Lag:
    return Lag(max(lag.machine for lag in lags), max(lag.crew for lag in lags))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
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
