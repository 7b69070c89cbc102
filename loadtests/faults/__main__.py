"""Play the rows: `python -m faults [--quick] [--rules] [--without RULE] [--json FILE] [row …]`, in `loadtests/`.

`python -m faults soak [--seconds N] [--seed N] [--json FILE]` lets clients live among random faults.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from faults import soak
from faults.crippling import RULES
from faults.findings import Finding
from faults.lag import VOID
from faults.playing import Played, Turn, Wish, play_all, time_limit
from faults.rows import ROWS, Row


def main(words: Sequence[str]) -> int:
    """Play the chosen rows; return 1 when one is missed or stays void."""
    if words[:1] == ["soak"]:
        return _soak(words[1:])
    arguments = _arguments(words)
    table = _table("without", "row", "client") if arguments.rules else _table("row", "client")
    table.caption = f"VOID: the machine woke sleepers more than {VOID * 1000:.0f} ms late"
    wish = Wish(arguments.quick, tuple(arguments.without), arguments.tries)
    results = []
    with Live(table, console=Console(), auto_refresh=False) as live:
        for played in play_all(list(_choose(arguments)), wish, arguments.jobs):
            results.append(played)
            _add(table, played)
            live.refresh()
    _write(arguments.json, [played.plain() for played in results])
    return 0 if all(played.good for played in results) else 1


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    names = list(dict.fromkeys(row.name for row in ROWS))
    parser = argparse.ArgumentParser(prog="faults", description="Faults on real servers.")
    parser.add_argument("rows", nargs="*", help=f"rows to play, of {', '.join(names)}; or: soak")
    parser.add_argument(
        "--quick", action="store_true", help="short forms of the rows that judge no times"
    )
    parser.add_argument(
        "--rules",
        action="store_true",
        help="play rows without the rules that they guard, which they must miss then",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=RULES,
        metavar="RULE",
        help=f"switch a rule of the client off: {', '.join(RULES)}",
    )
    parser.add_argument("--client", help="words of the clients that play, such as threads")
    parser.add_argument(
        "--tries", type=int, default=3, help="times a row is played when its times are void"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many to play at a time; with --quick alone"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    arguments = parser.parse_args(words)
    if arguments.jobs > 1 and not arguments.quick:
        parser.error("--jobs: rows that are played together make one another late; add --quick")
    if unknown := set(arguments.rows) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))} (known: {', '.join(names)})")
    if not any(True for _ in _choose(arguments)):
        parser.error("nothing of that can be played")
    return arguments


def _choose(arguments: argparse.Namespace) -> Iterator[Turn]:
    for row in ROWS:
        if arguments.rows and row.name not in arguments.rows:
            continue
        for turn in _guarded(row) if arguments.rules else _all(row):
            quick = row.quick if turn.guard is None else turn.guard.quick
            if (quick or not arguments.quick) and (arguments.client or "") in turn.crew.name:
                yield turn


def _all(row: Row) -> Iterator[Turn]:
    return (Turn(row, crew, kind) for kind in row.kinds for crew in row.crews)


def _guarded(row: Row) -> Iterator[Turn]:
    return (Turn(row, guard.crew, guard.kind, guard) for guard in row.guards)


def _table(*names: str) -> Table:
    return Table(*names, "asked", "measured", "verdict", "lag")


def _add(table: Table, played: Played) -> None:
    """Add a turn to the table, with one line for each of its figures."""
    turn, guard = played.turn, played.turn.guard
    left = [(turn.row.name, turn.crew.name), ("", turn.kind), ("", turn.row.fault)]
    lags = [f"{played.lag.machine * 1000:.0f} ms", f"crew {played.lag.crew * 1000:.0f} ms"]
    lines = [_line(finding, played) for finding in played.findings]
    if guard is not None:
        left = [(guard.rule if line == 0 else "", *cells) for line, cells in enumerate(left)]
        lines = [
            (asked, measured, played.verdict)
            for finding, (asked, measured, _) in zip(played.findings, lines, strict=True)
            if finding.name == guard.figure
        ]
    if played.error:
        lines.append(("", played.error, "MISSED"))
    if played.tries > 1:
        lines.append(("", f"(try {played.tries})", ""))
    blank = ("",) * len(left[0])
    for place in range(max(len(lines), len(left))):
        table.add_row(
            *(left[place] if place < len(left) else blank),
            *(lines[place] if place < len(lines) else ("", "", "")),
            lags[place] if place < len(lags) else "",
        )
    table.add_section()


def _line(finding: Finding, played: Played) -> tuple[str, str, str]:
    verdict = "VOID" if finding.timed and played.void else finding.verdict
    return f"{finding.name} {finding.asked}", finding.measured, verdict


def _soak(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="faults soak", description="Clients among random faults.")
    parser.add_argument("--seconds", type=float, default=90.0, help="default: 90")
    parser.add_argument("--seed", type=int, default=1, help="draws the faults (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    arguments = parser.parse_args(words)
    with time_limit(arguments.seconds + soak.PATIENCE):
        lived = soak.live(arguments.seconds, arguments.seed)
    table = Table("client", "asked", "measured", "verdict")
    planted = ", ".join(f"{count} {name}" for name, count in sorted(lived.planted.items()))
    table.title = f"{arguments.seconds:.0f} s, seed {arguments.seed}: {planted}"
    for client, findings in lived.findings.items():
        for place, finding in enumerate(findings):
            name = "" if place else client
            asked = f"{finding.name} {finding.asked}".rstrip()
            table.add_row(name, asked, finding.measured, finding.verdict)
        table.add_section()
    Console().print(table)
    _write(arguments.json, lived.plain())
    return 0 if lived.held else 1


def _write(path: str | None, plain: object) -> None:
    if path:
        Path(path).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
