"""Play the cases: `python -m stampede [--quick] [--json FILE] [case …]`, in `loadtests/`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from stampede.cases import CASES, FULL, PEERS, QUICK, Case
from stampede.figures import Bound, Figures
from stampede.scenes import Stage


class TimeUpError(Exception):
    """A case took longer than it may."""


@dataclass(frozen=True, slots=True)
class Played:
    """A case on one kind of servers: what was measured, what failed, how often it was tried.

    Unless `timed`, times are not judged.
    """

    case: Case
    stage: Stage
    timed: bool
    figures: Figures
    error: str | None
    tries: int
    seconds: float

    @property
    def bounds(self) -> Sequence[Bound]:
        """Return the expected bounds."""
        return self.case.bounds(self.stage)

    @property
    def missed(self) -> list[Bound]:
        """Return the bounds that do not hold."""
        judged = [bound for bound in self.bounds if self.timed or not bound.timed]
        return [bound for bound in judged if not bound.holds(self.figures)]

    @property
    def held(self) -> bool:
        """Return whether all bounds hold; a case that is only shown always holds."""
        return not self.case.asserted or not (self.error or self.missed)

    @property
    def late(self) -> bool:
        """Return whether only times were missed."""
        return not self.error and bool(self.missed) and all(b.timed for b in self.missed)

    def plain(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "case": self.case.name,
            "servers": self.stage.kind,
            "figures": dict(self.figures),
            "expected": [str(bound) for bound in self.bounds],
            "held": self.held,
            "error": self.error,
            "tries": self.tries,
            "seconds": round(self.seconds, 2),
        }


def main() -> int:
    """Play every case; return 1 when one misses."""
    arguments = _arguments()
    scale = QUICK if arguments.quick else FULL
    table = Table("case", "expected", "measured", "verdict")
    table.title = f"{scale.processes} processes × {scale.callers} callers"
    results = []
    with Live(table, console=Console(), auto_refresh=False) as live:
        for case, kind in _choose(arguments):
            stage = Stage(kind, scale, case.seconds)
            results.append(_play(case, stage, arguments))
            _add(table, results[-1])
            live.refresh()
    if arguments.json:
        text = json.dumps([played.plain() for played in results], indent=2)
        Path(arguments.json).write_text(text + "\n")
    return 0 if all(played.held for played in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stampede", description="Stampedes on real servers.")
    parser.add_argument("cases", nargs="*", help="words of the cases to play (default: all)")
    parser.add_argument("--quick", action="store_true", help="a smaller crowd and fewer cases")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument(
        "--counts-only", action="store_true", help="judge no times, as on a busy machine"
    )
    parser.add_argument(
        "--tries", type=int, default=3, help="times a case is played when only times are missed"
    )
    return parser.parse_args()


def _choose(arguments: argparse.Namespace) -> Iterator[tuple[Case, str]]:
    for case in (*CASES, *PEERS):
        kinds = case.quick_kinds if arguments.quick and not arguments.cases else case.kinds
        for kind in kinds:
            name = f"{case.name}, {kind}"
            if any(word in name for word in arguments.cases or [""]):
                yield case, kind


def _play(case: Case, stage: Stage, arguments: argparse.Namespace) -> Played:
    """Play a case; repeat it while only times are missed."""
    timed = not arguments.counts_only
    for turn in range(1, arguments.tries + 1):
        began = time.monotonic()
        figures, error = _measure(case, stage)
        played = Played(case, stage, timed, figures, error, turn, time.monotonic() - began)
        if not played.late:
            break
    return played


def _measure(case: Case, stage: Stage) -> tuple[Figures, str | None]:
    try:
        with _time_limit(case.seconds):
            return case.scene(stage), None
    except Exception as raised:  # noqa: BLE001 - a case that fails is a row, and the others follow
        return {}, f"{type(raised).__name__}: {raised}"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUpError` in the block when it takes longer than `seconds`."""

    def expired(_signal: int, _frame: object) -> None:
        raise TimeUpError(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _add(table: Table, played: Played) -> None:
    """Add a case to the table, a line for each of its figures."""
    lines = list(_shown(played) if played.case.shows else _judged(played))
    if played.error:
        lines.insert(0, ("", played.error, "FAILED"))
    if played.tries > 1:
        lines.append(("", "", f"(try {played.tries})"))
    names = [played.case.name, played.stage.kind]
    for place, line in enumerate(lines):
        table.add_row(names[place] if place < len(names) else "", *line)
    for name in names[len(lines) :]:
        table.add_row(name)
    table.add_section()


def _judged(played: Played) -> Iterator[tuple[str, str, str]]:
    for bound in played.bounds:
        verdict = "MISSED" if bound in played.missed else "holds"
        if bound.timed and not played.timed:
            verdict = "not judged"
        yield str(bound), bound.measured(played.figures), verdict


def _shown(played: Played) -> Iterator[tuple[str, str, str]]:
    for bound in played.case.shows:
        if bound.figure in played.figures:
            yield bound.figure, bound.measured(played.figures), "shown"


if __name__ == "__main__":
    sys.exit(main())
