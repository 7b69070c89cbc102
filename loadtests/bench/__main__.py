"""Run the benchmark: `python -m bench [--quick] [--json FILE] [word …]`, in `loadtests/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import (
    blocking,
    costs,
    hits,
    joiners,
    lagging,
    large,
    own_types,
    placing,
    report,
    tasks,
    threads,
)
from bench.bench import MINUTES, Bench
from bench.goals import GOALS
from bench.machine import pin
from bench.rounds import FULL, QUICK, Figures

# The claims' own cases come first: they get all their rounds on a slow machine as well.
GROUPS: Final[Mapping[str, Callable[[Bench], Iterator[tuple[str, Figures]]]]] = {
    "blocking": blocking.measure,
    "tasks": tasks.measure,
    "large": large.measure,
    "hits": hits.measure,
    "joiners": joiners.measure,
    "placing": placing.measure,
    "costs": costs.measure,
    "lagging": lagging.measure,
    "threads": threads.measure,
    "types": own_types.measure,
}


PIPED: Final = 160  # columns


def main() -> int:
    """Measure the groups that are asked for; return 1 when a goal is missed."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else PIPED)
    bench = Bench(plan=QUICK if arguments.quick else FULL, seconds=arguments.minutes * 60)
    pin()  # before peers start threads of their own
    bench.attendance.check_all()
    if arguments.growth:
        from bench import growth  # noqa: PLC0415 - it draws

        for path in growth.draw(bench, Path(arguments.growth), console.print):
            console.print(f"drawn: {path}")
        console.print(*report.lines_of_absence(bench.attendance), sep="\n")
        return 0
    results = _measure(bench, arguments.groups or list(GROUPS), console)
    console.print(report.table_of_goals(results, whole=not arguments.groups))
    console.print(*report.lines_of_absence(bench.attendance), sep="\n")
    late = ", with fewer rounds at the end" if bench.late else ""
    console.print(f"{bench.elapsed:.0f} s{late}; client and servers on one core unless said")
    if arguments.json:
        report.save(Path(arguments.json), results, bench.attendance, bench.elapsed)
    if arguments.markdown:
        table = report.markdown_of_goals(results)
        Path(arguments.markdown).write_text(table, encoding="utf-8")
    if arguments.svg:
        from bench.pictures import draw_bars  # noqa: PLC0415 - matplotlib is not needed to measure

        Path(arguments.svg).mkdir(parents=True, exist_ok=True)
        for path in draw_bars(Path(arguments.svg), results):
            console.print(f"drawn: {path}")
    if bench.failed:
        console.print(f"failed: {', '.join(bench.failed)}")
        return 1
    if arguments.quick:  # too short to judge anything
        return 0
    return 1 if any(report.is_missed(goal, results) for goal in GOALS) else 0


def _measure(bench: Bench, groups: list[str], console: Console) -> dict[str, Figures]:
    results: dict[str, Figures] = {}
    for group in groups:
        try:
            for case, figures in GROUPS[group](bench):
                results[case] = figures
                console.print(report.table_of_case(case, figures))
        except Exception:  # noqa: BLE001 - the other groups' minutes must not be lost
            console.print_exception()
            bench.failed.append(group)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Ratios to raw sockets and peers.")
    parser.add_argument(
        "groups", nargs="*", help=f"what to measure (default: all): {', '.join(GROUPS)}"
    )
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"time at most (default: {MINUTES:g})"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--markdown", metavar="FILE", help="write the goals to FILE as well")
    parser.add_argument("--svg", metavar="DIR", help="draw bars to DIR as well")
    parser.add_argument("--growth", metavar="DIR", help="draw how costs grow to DIR, and end")
    arguments = parser.parse_args()
    unknown = [group for group in arguments.groups if group not in GROUPS]
    if unknown:
        parser.error(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
