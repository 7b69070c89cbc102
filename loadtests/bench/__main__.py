"""Run the benchmark: `python -m bench [--rounds N] [--json FILE] [case …]`, in `loadtests/`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cases import CASES, Case
from bench.rounds import Timing


def main() -> int:
    """Measure every case; return 1 when a claim does not hold."""
    arguments = _arguments()
    if not arguments.unpinned:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    console = Console()
    results: dict[str, dict[str, Timing]] = {}
    chosen = [case for case in CASES if any(word in case.name for word in arguments.cases or [""])]
    for case in chosen:
        results[case.name] = case.run(arguments.rounds)
        console.print(_table(case, results[case.name]))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(_plain(results), indent=2) + "\n")
    held = [claim.holds(results[case.name]) for case in chosen for claim in case.claims]
    return 0 if all(held) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Ratios to raw sockets and peers.")
    parser.add_argument("cases", nargs="*", help="words of the cases to run (default: all)")
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count (default: 11)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--unpinned", action="store_true", help="let the kernel use every core")
    return parser.parse_args()


def _table(case: Case, timings: dict[str, Timing]) -> Table:
    table = Table("subject", "µs a call", "ratio", title=case.name, title_justify="left")
    first = next(iter(timings.values()))
    for name, timing in timings.items():
        table.add_row(name, f"{timing.seconds * 1e6:,.2f}", f"{timing.ratio(first):.2f}")
    for claim in case.claims:
        table.add_row(*claim.words(timings), "holds" if claim.holds(timings) else "MISSED")
    return table


def _plain(results: dict[str, dict[str, Timing]]) -> dict[str, dict[str, float]]:
    return {
        case: {name: timing.seconds for name, timing in timings.items()}
        for case, timings in results.items()
    }


if __name__ == "__main__":
    sys.exit(main())
